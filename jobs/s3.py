"""An S3 location through s3fs: how it is opened, and what its failures mean in one line without a secret."""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from jobs.errors import StoreError

if TYPE_CHECKING:
    import asyncio

    import s3fs

logger = logging.getLogger("tokenpair")

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
    "409",
    "500",
    "502",
    "503",
    "504",
}


class StorageSettings(Protocol):
    """Where and as whom S3 is asked; every field may be None."""

    @property
    def endpoint_url(self) -> str | None: ...
    @property
    def region(self) -> str | None: ...
    @property
    def profile(self) -> str | None: ...


@dataclass(frozen=True)
class Failure:
    """What went wrong, as a class of failures: ``transient`` ones are worth another attempt."""

    kind: str  # missing, exists, denied, keys, credentials, bucket, unreachable, busy, other
    code: str = ""

    @property
    def transient(self) -> bool:
        return self.kind in ("unreachable", "busy")


def endpoint_of(options: StorageSettings | None) -> str | None:
    """The endpoint asked for by the job or the environment; None is AWS itself or the profile's own."""
    asked = options.endpoint_url if options is not None else None
    return asked or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def without_login(url: str) -> str:
    """``url`` without user name, password, query and fragment, any of which may hold a secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


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
        system.retries = 1  # tenacity decides about further attempts
        system.loop.set_exception_handler(_unheard)
        system.connect()
    except (BotoCoreError, ValueError) as error:
        raise StoreError(_cannot_set_up(error, options, endpoint)) from None
    return system


def failure_of(error: BaseException) -> Failure:
    """Class of a failure raised by s3fs, botocore or the operating system."""
    from botocore import exceptions as boto
    from fsspec.exceptions import FSTimeoutError

    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
    code = str(response.get("Error", {}).get("Code", ""))
    number = getattr(error, "errno", None)
    if code in ("PreconditionFailed", "412") or isinstance(error, FileExistsError):
        return Failure("exists", code)
    if code in ("NoSuchBucket", "InvalidBucketName"):
        return Failure("bucket", code)
    if code in WRONG_KEYS:
        return Failure("keys", code)
    if code in BUSY or number in (errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO)):
        return Failure("busy", code)
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)):
        return Failure("credentials")
    if isinstance(error, (boto.ConnectionError, boto.HTTPClientError, ConnectionError, TimeoutError, FSTimeoutError)):
        return Failure("unreachable")
    if code in DENIED or isinstance(error, PermissionError):
        return Failure("denied", code)
    if isinstance(error, FileNotFoundError):
        return Failure("missing", code)
    return Failure("other", code or type(error).__name__)


def describe(failure: Failure, url: str, doing: str, endpoint: str | None) -> str:
    """One line for a user; ``doing`` is a verb such as "read" or "write to"."""
    where = without_login(endpoint) if endpoint else "AWS"
    code = f" ({failure.code})" if failure.code else ""
    if failure.kind == "unreachable":
        return (
            f"cannot {doing} {url}: no answer from the S3 endpoint {where}; check storage.endpoint_url and the network"
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
    bucket = bucket_of(url)
    if "@" in bucket:
        raise StoreError("an s3:// location must not hold a key; use the AWS environment or storage.profile")
    if not bucket:
        raise StoreError(f"{url}: an s3:// location needs a bucket, as in s3://bucket/folder")
    return url.rstrip("/")


def _unheard(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What fails beside a request fails with it: asyncio would print a traceback, and the request tells the same."""
    logger.debug("%s: %r", context.get("message"), context.get("exception"))


def _cannot_set_up(error: Exception, options: StorageSettings | None, endpoint: str | None) -> str:
    from botocore import exceptions as boto

    if isinstance(error, boto.ProfileNotFound):
        named = (options.profile if options is not None else None) or os.environ.get("AWS_PROFILE", "")
        return f"storage.profile: there is no AWS profile {named!r} on this machine"
    if isinstance(error, ValueError) and endpoint:
        return f"storage.endpoint_url: {without_login(endpoint)!r} is not a URL such as https://host:port"
    return f"S3 cannot be set up from the AWS environment ({type(error).__name__})"
