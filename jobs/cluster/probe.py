"""The check that runs on a cluster before a job does. It prints one line of JSON for ``tokenpair submit``.

Ray runs it with the cluster's own Python, so this file works with every Python since 3.8 and imports nothing of
tokenpair until the versions are checked.
"""

import json
import platform
import sys
import traceback
from importlib import metadata
from typing import Any

MARK = "TOKENPAIR-CHECK "


def main() -> None:
    """Check the cluster against ``expected.json``, and print errors and notices as one line of JSON."""
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
    from jobs.cluster.checks import check_cluster  # needs the packages whose versions were just checked

    check_cluster(expected, errors, notes)


def wrong_versions(expected: Any) -> Any:
    """Return errors about versions of Python and of packages that tokenpair does not support, as a list of strings."""
    try:
        from packaging.requirements import Requirement
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return [f"the cluster's `python` ({sys.executable}) has no Ray: name the right one with --python"]
    python = platform.python_version()
    if not SpecifierSet(expected["python"]).contains(python):
        return [f"the cluster runs Python {python}; tokenpair needs {expected['python']}"]
    missing, other = [], []
    for line in expected["requirements"]:
        needed = Requirement(line)
        try:
            installed = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            missing.append(needed.name)
            continue
        if not needed.specifier.contains(installed, prereleases=True):
            other.append(f"{needed.name} {installed} ({needed.specifier} is needed)")
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
