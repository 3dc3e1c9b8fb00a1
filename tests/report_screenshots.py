"""The READMEs' pictures: ``python tests/report_screenshots.py REPORT.html FOLDER [QUERY.html]``; look at them first.

``QUERY.html`` is the page of ``tokenpair show RUN --query ID --top 2 --html QUERY.html``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from chromium import Browser, browser, program

WORD = '#text-0 .word[data-g="3"]'


def main(report: Path, folder: Path, query: Path | None = None) -> None:
    """The summary and the explorer on a desktop, the explorer on a telephone in the dark, and the page of a query."""
    chromium = program()
    assert chromium is not None, "no Chromium here: apt-get install chromium"
    folder.mkdir(exist_ok=True)
    with browser(chromium) as tab:
        tab.size(960, 1010)
        tab.scheme("light")
        tab.open(report)
        tab.picture(folder / "summary.png")
        tab.value("document.querySelector('#found-parts-of-speech').scrollIntoView()")
        tab.size(960, 760)
        tab.picture(folder / "findings.png")
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
