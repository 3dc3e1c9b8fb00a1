"""The check that runs on a cluster before a job does: prints one line of JSON for ``tokenpair submit``.

Ray's jobs run the cluster's own Python, whichever that is, so this file keeps to what every Python 3 since 3.8 reads
and imports nothing of tokenpair until the versions are known to be right.
"""

import json
import platform
import sys
import traceback
from typing import Any

MARK = "TOKENPAIR-CHECK "


def main() -> None:
    """Check what ``expected.json`` says, and print the findings."""
    with open("expected.json", encoding="utf-8") as file:
        expected = json.load(file)
    errors: Any = []
    notes: Any = []
    try:
        _check(expected, errors, notes)
    except Exception as error:
        lines = traceback.format_exc().strip().splitlines()
        errors.append(f"the check failed there: {type(error).__name__}: {error} ({lines[-2].strip()})")
    sys.stdout.flush()
    print("\n" + MARK + json.dumps({"errors": errors, "notes": notes}), flush=True)


def _check(expected: Any, errors: Any, notes: Any) -> None:
    errors.extend(wrong_versions(expected))
    if errors:
        return
    python = platform.python_version()
    if python.split(".")[:2] != expected["here"].split(".")[:2]:
        notes.append(f"the cluster runs Python {python}, this machine {expected['here']}")
    from jobs.cluster.checks import check_cluster

    check_cluster(expected, errors, notes)


def wrong_versions(expected: Any) -> Any:
    """Sentences about this Python and its packages, where they are not what tokenpair needs."""
    try:
        from packaging.requirements import Requirement
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return [f"the cluster's `python` ({sys.executable}) has no Ray: name the right one with --python"]
    python = platform.python_version()
    if not SpecifierSet(expected["python"]).contains(python):
        return [f"the cluster runs Python {python}; tokenpair needs {expected['python']}"]
    from importlib import metadata

    missing, other = [], []
    for line in expected["requirements"]:
        needed = Requirement(line)
        try:
            found = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            missing.append(needed.name)
            continue
        if not needed.specifier.contains(found, prereleases=True):
            other.append(f"{needed.name} {found} ({needed.specifier} is needed)")
    wrong = []
    if other:
        wrong.append("the cluster has " + ", ".join(other))
    if missing:
        wrong.append("the cluster's Python lacks " + ", ".join(missing))
    if wrong:
        wrong[-1] += ": install tokenpair on its machines, or let it install what is missing with --install"
    return wrong


if __name__ == "__main__":
    main()
