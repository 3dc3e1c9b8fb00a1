"""What S3 and what stands before it may answer: which answers are tried again, and what is told without a secret."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from aiohttp import ClientPayloadError
from botocore.exceptions import ClientError, IncompleteReadError, ReadTimeoutError
from botocore.parsers import ResponseParserError
from s3fs.errors import translate_boto_error
from test_stores import as_user
from urllib3.exceptions import IncompleteRead

from jobs.errors import StoreError
from jobs.sources.files import resolve_inputs
from jobs.storage.s3 import failure_of, store_failures, without_login
from jobs.storage.store import Store

LISTING = b'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'
TABLE = b"sentence1,sentence2\n"


class _Answers(BaseHTTPRequestHandler):
    """An S3 server of one file: the next ``cut`` bodies end early."""

    protocol_version = "HTTP/1.1"
    body: ClassVar[bytes] = TABLE
    cut: ClassVar[int] = 0

    def do_HEAD(self) -> None:
        self._say(200, self.body, silent=True)

    def do_GET(self) -> None:
        if "list-type" in self.path:
            self._cut(LISTING)
        elif not self.body and "Range" in self.headers:
            self._say(416, b"<Error><Code>InvalidRange</Code></Error>")
        else:
            self._cut(self.body)

    def _cut(self, body: bytes) -> None:
        kind = type(self)
        short, kind.cut = kind.cut > 0, max(kind.cut - 1, 0)
        self._say(200, body, short=short)

    def _say(self, status: int, body: bytes, *, silent: bool = False, short: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(b"" if silent else body[:4] if short else body)
        self.close_connection = short

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Answers]]:
    kind = type("Answers", (_Answers,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hushhush", "AWS_EC2_METADATA_DISABLED": "true"}
    as_user(monkeypatch, keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"})
    yield kind
    server.shutdown()
    server.server_close()


def told(act: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as caught:
        act()
    assert "\n" not in str(caught.value)
    assert "hushhush" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("most", [None, 1000])
def test_a_body_that_is_cut_short_is_asked_for_again(answers: type[_Answers], most: int | None) -> None:
    """A server that died while it answered ended a run as a bug in tokenpair."""
    store = Store.open("s3://bucket/run")
    answers.cut = 2
    assert store.read("table.csv", most=most) == TABLE
    store.patience, answers.cut = 0.5, 100
    assert "no whole answer" in told(lambda: store.read("table.csv", most=most))


def test_a_listing_that_is_cut_short_is_asked_for_again(answers: type[_Answers]) -> None:
    store = Store.open("s3://bucket/run")
    answers.cut = 2
    assert store.list("attributions") == []
    answers.cut = 100
    assert "answer from the S3 endpoint" in told(lambda: Store.open("s3://bucket/run"))


def test_an_input_that_is_cut_short_is_the_stores_failure(answers: type[_Answers]) -> None:
    (file,) = resolve_inputs("s3://bucket/table.csv")
    answers.cut = 100
    assert "no whole answer" in told(file.fingerprint)


def test_a_server_without_the_first_bytes_of_an_empty_file(answers: type[_Answers]) -> None:
    answers.body = b""
    assert Store.open("s3://bucket/run").read("_SUCCESS", most=10) == b""


def answered(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("SlowDownRead", 503, "busy"),
        ("SlowDownWrite", 503, "busy"),
        ("XMinioServerNotInitialized", 503, "busy"),
        ("TooManyRequests", 429, "busy"),
        ("OfItsOwn", 429, "busy"),
        ("Throttling", 400, "busy"),
        ("", 502, "busy"),
        ("504", 504, "busy"),
        ("NotImplemented", 501, "other"),
        ("AccessDenied", 403, "denied"),
        ("NoSuchKey", 404, "missing"),
        ("NoSuchBucket", 404, "bucket"),
        ("InvalidArgument", 400, "other"),
    ],
)
def test_a_busy_server_is_known_by_its_status(code: str, status: int, kind: str) -> None:
    """Other servers than AWS have names of their own for it, and a run ended at the first of them."""
    assert failure_of(translate_boto_error(answered(code, status))).kind == kind


@pytest.mark.parametrize(
    "error",
    [
        IncompleteRead(3, 5),
        IncompleteReadError(actual_bytes=3, expected_bytes=8),
        ReadTimeoutError(endpoint_url="http://host"),
        ResponseParserError("a web page of a proxy"),
        ClientPayloadError("not enough data"),
    ],
)
def test_half_an_answer_is_tried_again(error: Exception) -> None:
    assert isinstance(error, store_failures())
    assert failure_of(error).transient


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("http://host:8333/path", "http://host:8333/path"),
        ("http://user:hushhush@host:1/path?token=hushhush#hushhush", "http://host:1/path"),
        ("http://user:hush/hushhush@host", "http://(hidden)"),
        ("http://user:hush?hushhush@host", "http://(hidden)"),
        ("http://[abc", "http://[abc"),
        ("user:hushhush@host", "host"),
    ],
)
def test_an_endpoint_is_shown_without_its_login(endpoint: str, shown: str) -> None:
    assert without_login(endpoint) == shown


@pytest.mark.parametrize(
    "endpoint", ["http://[abc", "http://user:hushhush@ho℀st", "http://u:hush/hushhush@host.invalid"]
)
def test_an_endpoint_that_is_no_url_is_one_line(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Python's own words on such a URL hold its password."""
    as_user(monkeypatch, {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": endpoint})
    told(lambda: Store.open("s3://bucket/run"))


@pytest.mark.parametrize(
    "url", ["s3://KEY:hush/hushhush@bucket/run", "s3://KEY?:hushhush@b", "s3:///KEY:hushhush@bucket"]
)
def test_a_login_in_a_location_is_not_repeated(url: str) -> None:
    assert "must not contain a key" in told(lambda: Store.open(url))
    assert "must not contain a key" in told(lambda: resolve_inputs(url))
