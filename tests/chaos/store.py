"""The S3 server as something that stops, dies and comes back, and a proxy that lets it die in the middle of a PUT."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import s3_server


class Bucket:
    """A SeaweedFS server of its own, of which a run uses a folder of the bucket."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._server = s3_server.start_server(folder)

    @property
    def endpoint(self) -> str:
        """Where it listens, whatever became of its process."""
        return self._server.endpoint

    @property
    def keys(self) -> dict[str, str]:
        """The environment variables of somebody who may write."""
        return self._server.admin

    def url(self, name: str) -> str:
        """The address of a folder."""
        return f"s3://{self._server.bucket}/{name}"

    def freeze(self) -> None:
        """Stop answering, with connections left open."""
        os.killpg(self._server.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Answer again, also what was asked in the meantime."""
        os.killpg(self._server.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End its process with -9; what it stored stays."""
        s3_server.stop_server(self._server)

    def start(self) -> None:
        """Come back at the same address."""
        self._server = s3_server.start_again(self._server)

    def end(self) -> None:
        """End it for good."""
        with contextlib.suppress(ProcessLookupError):
            self.thaw()
        s3_server.stop_server(self._server)


class CuttingProxy:
    """Passes bytes on to ``upstream``, until the PUT numbered ``which`` of a part: that one it cuts.

    Of it the server gets the head and half of the body, or with ``body_whole`` all of it, and only the answer is
    lost; then ``cut`` is called, with the client still waiting, and the connection is broken.
    """

    def __init__(self, upstream: str, which: int, *, body_whole: bool, cut: Callable[[], None]) -> None:
        host, _, port = upstream.removeprefix("http://").partition(":")
        self._upstream = (host, int(port))
        self._left, self._body_whole, self._cut = which, body_whole, cut
        self._lock = threading.Lock()
        self.happened = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ended = False
        threading.Thread(target=self._accept, daemon=True).start()

    def end(self) -> None:
        """Take no connection any more."""
        self._ended = True
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._upstream, timeout=5) as server:
            server.settimeout(None)
            with selectors.DefaultSelector() as ready:
                ready.register(client, selectors.EVENT_READ, server)
                ready.register(server, selectors.EVENT_READ, client)
                while True:
                    for key, _ in ready.select():
                        source, target = key.fileobj, key.data
                        assert isinstance(source, socket.socket)
                        data = source.recv(1 << 16)
                        if not data:
                            return
                        if source is client and self._is_the_one(data):
                            self._break(client, server, data)
                            return
                        target.sendall(data)

    def _is_the_one(self, data: bytes) -> bool:
        """Whether ``data`` begins the PUT to cut. A request's head arrives in one piece on loopback."""
        head = data[:2000].split(b"\r\n", 1)[0]
        if not (head.startswith(b"PUT ") and b"/attributions/part-" in head):
            return False
        with self._lock:
            self._left -= 1
            return self._left == 0

    def _break(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        size = int(fields[b"content-length"])
        server.sendall(head + b"\r\n\r\n")
        if not body and b"expect" in fields:
            client.sendall(server.recv(1 << 16))
        while len(body) < size and (more := client.recv(1 << 16)):
            body += more
        if self._body_whole:
            server.sendall(body)
            # The answer says that it is stored; nobody will hear it.
            server.settimeout(10)
            server.recv(1 << 16)
        else:
            server.sendall(body[: size // 2])
        self._cut()
        self.happened.set()
