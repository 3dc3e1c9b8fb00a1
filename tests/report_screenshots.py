"""The READMEs' pictures: ``python tests/report_screenshots.py REPORT.html FOLDER [QUERY.html]``; look at them first.

``QUERY.html`` is the page of ``tokenpair show RUN --query ID --top 2 --html QUERY.html``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from chromium import Browser, browser, program

# A query whose margin is drawn: "turn a JSON string into Python objects".
FAILING = "document.getElementById('failing=parse-json').querySelector('button')"
WORD = '#text-0 .word[data-g="4"]'


def main(report: Path, folder: Path, query: Path | None = None) -> None:
    """Verdict, a failing query and explorer on a desktop, the explorer on a dark telephone, and the page of a query."""
    chromium = program()
    assert chromium is not None, "no Chromium here: apt-get install chromium"
    folder.mkdir(exist_ok=True)
    with browser(chromium) as tab:
        tab.size(1200, 830)
        tab.scheme("light")
        tab.open(report)
        tab.picture(folder / "summary.png")
        tab.value(f"{FAILING}.click()")
        tab.value(f"{FAILING}.closest('tr').scrollIntoView()")
        tab.picture(folder / "failing.png")
        tab.value(f"{FAILING}.click()")
        _explorer(tab, folder / "explorer.png", 960, 830)
        tab.scheme("dark")
        _explorer(tab, folder / "telephone.png", 360, 740)
        if query is not None:
            tab.scheme("light")
            tab.size(780, 620)
            tab.open(query)
            tab.picture(folder / "query.png")


def _explorer(tab: Browser, picture: Path, width: int, height: int) -> None:
    tab.size(width, height)
    tab.value("document.querySelector('#explorer').scrollIntoView()")
    tab.point_at(WORD, scroll=False)
    tab.picture(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]), *(Path(name).absolute() for name in sys.argv[3:4]))
