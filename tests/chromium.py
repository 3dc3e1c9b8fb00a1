"""Headless Chromium, driven over its own DevTools protocol through a pipe: no port, no driver, no package."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 60.0
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


def program() -> str | None:
    """The path of a Chromium on this machine, or None; TOKENPAIR_CHROMIUM names another one."""
    named = os.environ.get("TOKENPAIR_CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One tab. ``events`` are the console's lines, exceptions and requests since :meth:`open`."""

    def __init__(self, chromium: str, room: Path) -> None:
        to_it, self._writing = os.pipe()
        self._reading, from_it = os.pipe()
        arguments = [
            *("--headless=new", "--remote-debugging-pipe", "--no-first-run", f"--user-data-dir={room}"),
            # As root, and in containers, its sandbox does not start; the pages are our own.
            *("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync", "about:blank"),
        ]

        # It reads commands from file descriptor 3 and answers on 4. Numbers in between must not be closed before they
        # are copied, so both go out of the way first.
        command = f'exec 8<&{to_it} 9>&{from_it} 3<&8 4>&9 8<&- 9>&-; exec "$0" "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", command, chromium, *arguments],
            pass_fds=(to_it, from_it),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_it)
        os.close(from_it)
        self._number, self._rest = 0, b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        pages = [one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its result; RuntimeError where it fails."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self.events.append(answer)

    def open(self, path: Path, fragment: str = "") -> None:
        """Load a file and wait until its scripts have run."""
        for url in ("about:blank", path.as_uri() + fragment):
            self.events.clear()
            self.call("Page.navigate", url=url)
            until = time.monotonic() + PATIENCE
            while not any(one.get("method") == "Page.loadEventFired" for one in self.events):
                assert time.monotonic() < until, "the page did not load"
                self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is, as JSON."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def point_at(self, selector: str, *, click: bool = False, scroll: bool = True) -> None:
        """Move the pointer to the middle of an element, scrolled into view."""
        found = json.dumps(selector)
        into_view = "node.scrollIntoView({block: 'center', behavior: 'instant'});" if scroll else ""
        x, y = self.value(
            f"(() => {{ const node = document.querySelector({found}); {into_view} const box = node.getClientRects()[0];"
            " return [box.left + box.width / 2, box.top + box.height / 2]; })()"
        )
        for kind in ["mouseMoved", *(("mousePressed", "mouseReleased") if click else ())]:
            button = "none" if kind == "mouseMoved" else "left"
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=int(click))

    def press(self, key: str) -> None:
        """Press and let go of one key."""
        text = {"Enter": "\r", " ": " "}.get(key)
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            code = KEYS.get(key, ord(key[0]))
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)

    def size(self, width: int, height: int, *, scale: float = 1.0) -> None:
        """The window in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    def scheme(self, scheme: str, media: str = "") -> None:
        """light or dark, and "print" or the screen."""
        # A page that scrolls smoothly would move away under the pointer.
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """What is in the window, or the whole page, as a PNG."""
        taken = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and exceptions."""
        said = []
        for one in self.events:
            method, facts = one.get("method"), one.get("params", {})
            if method == "Runtime.exceptionThrown" or (
                method == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert")
            ):
                said.append(json.dumps(facts)[:500])
            if method == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
                said.append(facts["entry"]["text"])
        return said

    def requests(self) -> list[str]:
        """Addresses that were asked for."""
        sent = [one for one in self.events if one.get("method") == "Network.requestWillBeSent"]
        return [one["params"]["request"]["url"] for one in sent]

    def close(self) -> None:
        with contextlib.suppress(RuntimeError, OSError, AssertionError):
            self._session = None
            self.call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._writing)
        os.close(self._reading)

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reading], [], [], max(until - time.monotonic(), 0))
            assert ready, "Chromium does not answer"
            read = os.read(self._reading, 1 << 20)
            if not read:
                raise OSError("Chromium has ended")
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


@contextlib.contextmanager
def browser(chromium: str) -> Iterator[Browser]:
    """A browser with a profile of its own that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as room:
        opened = Browser(chromium, Path(room))
        try:
            yield opened
        finally:
            opened.close()
