"""Errors that name settings name the flag instead, where that is how the setting was given."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STORAGE = {
    "storage.endpoint_url": "--endpoint-url",
    "storage.region": "--region",
    "storage.profile": "--profile",
}
# What stands beside a name that is one: not a part of a path or of a longer name, and not a quotation.
BEFORE, AFTER = r"(?<![\w./\\'\"=-])", r"(?![\w/\\'\"]|\.\w)"


@dataclass(frozen=True)
class FlagNames:
    """``flags`` by the setting that each sets, such as ``columns.a``; ``where`` is the job file as errors call it."""

    flags: Mapping[str, str] = field(default_factory=lambda: STORAGE)
    where: str = ""

    def line(self, line: str) -> str:
        """A line of an error with flags in place of settings.

        Settings called by a plain word, such as ``layer``, are recognised only where an error begins with them.
        """
        for name, flag in self.flags.items():
            if re.search(rf"{flag}(?![\w-])", line):
                continue  # it says both
            exact = re.escape(name)
            file = rf"(?:{re.escape(' '.join(self.where.split()))}: )?" if self.where else ""
            line = re.sub(rf"^{file}{exact}(?=: | must | ['\d-])", flag, line)
            line = re.sub(rf"(?<=[:;] ){exact}(?=: .* there, .* now)", flag, line)
            if "." in name or "_" in name:
                # Advice, such as "with workers.gpus: 0 it computes".
                line = re.sub(rf"(\w |\(){exact}: (?=[\w'])", rf"\1{flag} ", line)
                line = re.sub(f"{BEFORE}{exact}{AFTER}", flag, line)
        if self.flags.get("header"):
            line = line.replace("with header: false, ", "with --no-header, ")
        return line


def given_flags(flags: Mapping[str, str], job_file: Path | None, settings: Mapping[str, Any]) -> FlagNames:
    """The names of ``flags``, by setting, that stand for settings of a job.

    Of a job with a file those that were given; of one without a file all, for whoever has none uses flags.
    """
    given = {path for path, value in flat(settings) if value is not None}
    names = {path: flag for path, flag in flags.items() if job_file is None or path in given}
    return FlagNames(names, "" if job_file is None else str(job_file))


def flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting of nested ones with its path, such as ``columns.a``."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}.")
        else:
            yield above + name, value
