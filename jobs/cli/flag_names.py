"""Replaces settings in error messages by the flags that the user gave, such as ``columns.a`` by ``--a``."""

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
# What may precede and follow a setting's name: it is not part of a path or of a longer name, and not quoted.
BEFORE, AFTER = r"(?<![\w./\\'\"=-])", r"(?![\w/\\'\"]|\.\w)"


@dataclass(frozen=True)
class FlagNames:
    """The flags to name in errors, by setting, such as ``columns.a``; ``where`` is the job file's name in errors."""

    flags: Mapping[str, str] = field(default_factory=lambda: STORAGE)
    where: str = ""

    def line(self, line: str) -> str:
        """Return a line of an error with flags in place of settings.

        A setting whose name is a plain word, such as ``layer``, is replaced only at the beginning of an error.
        """
        for name, flag in self.flags.items():
            if re.search(rf"{flag}(?![\w-])", line):
                continue  # the line names the flag already
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
    """Return the flags that errors name in place of settings.

    With a job file these are the flags that were given; without one, all of them.
    """
    given = {path for path, value in flat(settings) if value is not None}
    names = {path: flag for path, flag in flags.items() if job_file is None or path in given}
    return FlagNames(names, "" if job_file is None else str(job_file))


def flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each setting of nested mappings as its path, such as ``columns.a``, and its value."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}.")
        else:
            yield above + name, value
