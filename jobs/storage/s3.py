"""An S3 location through s3fs: how it is opened, and what its failures mean in one line without a secret.

s3fs, botocore and aiohttp are imported inside: ``tokenpair status`` of a run on this machine needs none of them.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from jobs.errors import StoreError

if TYPE_CHECKING:
    import asyncio

    import s3fs

T = TypeVar("T")

logger = logging.getLogger("tokenpair")

# An access point's name is the one bucket name with a ":"; what follows its "/" belongs to it.
ACCESS_POINT = re.compile(r"arn:aws[a-z-]*:s3[a-z-]*:[a-z0-9-]*:\d{12}:[a-z]+", re.ASCII)
CONNECT_SECONDS = 3
READ_SECONDS = 60

WRONG_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "InvalidSecurity"}
DENIED = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "403", "Forbidden"}
BUSY = {
    "SlowDown",
    "ServiceUnavailable",
    "InternalError",
    "RequestTimeout",
    "OperationAborted",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "409",
}


class StorageSettings(Protocol):
    """Endpoint, region and profile for S3; every field may be None."""

    @property
    def endpoint_url(self) -> str | None: ...
    @property
    def region(self) -> str | None: ...
    @property
    def profile(self) -> str | None: ...


@dataclass(frozen=True)
class Failure:
    """Classes of failures; ``transient`` ones are retried."""

    kind: str  # missing, exists, denied, keys, credentials, bucket, unreachable, busy, other
    code: str = ""

    @property
    def transient(self) -> bool:
        return self.kind in ("unreachable", "busy")

    @property
    def beyond_end(self) -> bool:
        """Whether the bytes asked for begin where the file has ended."""
        return self.code in ("InvalidRange", "416")


def endpoint_of(options: StorageSettings | None) -> str | None:
    """The endpoint asked for by the job or the environment; None is AWS itself or the profile's own."""
    asked = options.endpoint_url if options is not None else None
    return asked or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def without_login(url: str) -> str:
    """``url``, which may be none, without user name, password, query and fragment: any of them may hold a secret."""
    scheme = prefix[0] if (prefix := re.match(r"[A-Za-z][\w+.-]*://", url)) else ""
    host = re.split(r"[/?#\\]", url.removeprefix(scheme), maxsplit=1)[0]
    path = url.removeprefix(scheme + host)
    # A password with a "/" in it looks like a path: where the host begins is not known.
    if "@" in path:
        return f"{scheme}(hidden)"
    return scheme + host.rpartition("@")[2] + re.split(r"[?#]", path)[0]


def holds_login(address: str) -> bool:
    """Whether ``address`` may carry a user's name or password; those may hold a "/"."""
    scheme, there, rest = address.partition("://")
    if not there or not re.fullmatch(r"[A-Za-z][\w+.-]*", scheme):
        return False
    first = rest.split("/", 1)[0]
    if scheme.lower() in ("http", "https"):
        return "@" in rest
    if scheme.lower() == "s3":  # a bucket's name has neither a ":" nor a "@", what follows it may have both
        return "@" in first or (":" in first and not ACCESS_POINT.fullmatch(first)) or (not first and "@" in rest)
    return "@" in first or (":" in first and "@" in rest)


def open_s3(options: StorageSettings | None) -> s3fs.S3FileSystem:
    """A file system with bounded time-outs and no retries of its own beyond one; raises StoreError."""
    import s3fs
    from botocore.exceptions import BotoCoreError

    endpoint = endpoint_of(options)
    config: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"total_max_attempts": 2, "mode": "standard"},
    }
    if endpoint:  # other servers than AWS seldom resolve bucket.host names
        config["s3"] = {"addressing_style": "path"}
    keywords: dict[str, Any] = {}
    if options is not None and options.profile:
        keywords["profile"] = options.profile
    region = options.region if options is not None else None
    try:
        # A cached instance would keep the credentials of an earlier call in the same process.
        system = s3fs.S3FileSystem(
            endpoint_url=endpoint,
            client_kwargs={"region_name": region} if region else {},
            config_kwargs=config,
            use_listings_cache=False,
            skip_instance_cache=True,
            **keywords,
        )
        system.retries = 1  # tenacity retries
        system.loop.set_exception_handler(_log_quietly)
        system.connect()
    except (BotoCoreError, ValueError) as error:
        raise StoreError(_cannot_set_up(error, options, endpoint)) from None
    return system


def failure_of(error: BaseException) -> Failure:
    """Class of a failure raised by s3fs, botocore or the operating system."""
    from botocore import exceptions as boto
    from fsspec.exceptions import FSTimeoutError

    code, status = _answer(error)
    number = getattr(error, "errno", None)
    if code in ("PreconditionFailed", "412") or isinstance(error, FileExistsError):
        return Failure("exists", code)
    if code in ("NoSuchBucket", "InvalidBucketName"):
        return Failure("bucket", code)
    if code in WRONG_KEYS:
        return Failure("keys", code)
    # Servers have names of their own for it (SlowDownRead, XMinioServerNotInitialized): the status is common to them.
    if code in BUSY or status == 429 or (status >= 500 and status != 501):
        return Failure("busy", code or str(status))
    if number in (errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO)):
        return Failure("busy", code)
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)):
        return Failure("credentials")
    if isinstance(error, (boto.ConnectionError, boto.HTTPClientError, ConnectionError, TimeoutError, FSTimeoutError)):
        return Failure("unreachable")
    if isinstance(error, _half_answers()):
        return Failure("unreachable", type(error).__name__)
    if code in DENIED or isinstance(error, PermissionError):
        return Failure("denied", code)
    if isinstance(error, FileNotFoundError):
        return Failure("missing", code)
    return Failure("other", code or type(error).__name__)


def _answer(error: BaseException) -> tuple[str, int]:
    """The error code and the HTTP status that the server answered with, "" and 0 where it did not."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if response and isinstance(response, dict):
            code = response.get("Error", {}).get("Code", "")
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            # The answer to a HEAD has no body with a code, so the status is used instead.
            return str(code), status or (int(code) if re.fullmatch(r"[1-5]\d\d", str(code), re.ASCII) else 0)
    return "", 0


def _half_answers() -> tuple[type[BaseException], ...]:
    """The errors of answers that are incomplete, or do not come from S3 but from a proxy."""
    import aiohttp
    from botocore.exceptions import IncompleteReadError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import IncompleteRead

    return aiohttp.ClientError, IncompleteReadError, ResponseParserError, IncompleteRead


def store_failures() -> tuple[type[BaseException], ...]:
    """The errors that the store causes, not a mistake in the program."""
    from botocore.exceptions import BotoCoreError, ClientError

    return OSError, TimeoutError, BotoCoreError, ClientError, *_half_answers()


def retried(act: Callable[[], T], patience: float) -> T:
    """Return what ``act`` returns, retried with growing pauses for ``patience`` seconds on transient failures."""
    import tenacity

    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_delay(patience),
        wait=tenacity.wait_exponential(multiplier=0.2, max=15) + tenacity.wait_random(0, 0.5),
        retry=tenacity.retry_if_exception(lambda e: isinstance(e, store_failures()) and failure_of(e).transient),
        reraise=True,
    )
    return retrying(act)


def describe(failure: Failure, url: str, doing: str, endpoint: str | None) -> str:
    """One line for a user; ``doing`` is a verb such as "read" or "write to"."""
    where = without_login(endpoint) if endpoint else "AWS"
    code = f" ({failure.code})" if failure.code else ""
    if failure.kind == "unreachable":
        answer = "no whole answer" if failure.code else "no answer"
        return (
            f"cannot {doing} {url}: {answer} from the S3 endpoint {where}{code}; "
            "check storage.endpoint_url and the network"
        )
    if failure.kind == "busy":
        return f"cannot {doing} {url}: the S3 endpoint {where} keeps answering that it is busy or failing{code}"
    if failure.kind == "keys":
        return (
            f"cannot {doing} {url}: the access key or its secret is not accepted at {where}{code}; "
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or the profile"
        )
    if failure.kind == "credentials":
        return (
            f"cannot {doing} {url}: no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or storage.profile"
        )
    if failure.kind == "denied":
        return f"cannot {doing} {url}: these credentials have no permission for it at {where}{code}"
    if failure.kind == "bucket":
        return f"cannot {doing} {url}: there is no bucket {bucket_of(url)!r} at {where}"
    if failure.kind == "missing":
        return f"cannot {doing} {url}: it does not exist"
    return f"cannot {doing} {url}: the S3 endpoint {where} refused it{code}"


def bucket_of(url: str) -> str:
    """The bucket of an ``s3://bucket/key`` location."""
    return url.removeprefix("s3://").split("/", 1)[0]


def checked_url(url: str) -> str:
    """``url`` without trailing slashes; StoreError when it names no bucket or carries a login."""
    if holds_login(url):
        raise StoreError("an s3:// location must not contain a key; use the AWS environment or storage.profile")
    if not bucket_of(url):
        raise StoreError(f"{url}: an s3:// location needs a bucket, as in s3://bucket/folder")
    return url.rstrip("/")


def _log_quietly(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Suppress asyncio's tracebacks; the request raises the same error."""
    logger.debug("%s: %r", context.get("message"), context.get("exception"))


def _cannot_set_up(error: Exception, options: StorageSettings | None, endpoint: str | None) -> str:
    from botocore import exceptions as boto

    if isinstance(error, boto.ProfileNotFound):
        named = (options.profile if options is not None else None) or os.environ.get("AWS_PROFILE", "")
        return f"storage.profile: there is no AWS profile {named!r} on this machine"
    if isinstance(error, ValueError) and endpoint:
        return f"storage.endpoint_url: {without_login(endpoint)!r} is not a URL such as https://host:port"
    return f"S3 cannot be set up from the AWS environment ({type(error).__name__})"
