"""Translation of obstore's errors into our own error classes.

Their texts hold addresses, and the answer's XML; ours have its status and its code alone. They stay attached as causes.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError

from ..errors import PackMissing, StorageFull, StoreError

_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,60})</Code>")
_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})")

_CLOCK = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_KEYS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
)
_REGION = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"})
_FOREIGN = ("MissingEtag", "InvalidListResponse")
_FULL = frozenset({"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "EntityTooLarge"})


@contextmanager
def translated(doing: str, *, pack: str | None = None) -> Iterator[None]:
    """Turn an error of obstore raised while ``doing`` into a StoreError: StorageFull if no room is left, PackMissing if
    an object of ``pack`` does not exist.
    """
    try:
        yield
    except (BaseError, OSError) as error:
        raise _translation(doing, error, pack) from error


def is_beyond_the_end(error: BaseError) -> bool:
    """Tell whether a range was refused because the object ends before it."""
    return "StartTooLarge" in str(error) or _status(str(error)) == "416"


def _translation(doing: str, error: Exception, pack: str | None) -> StoreError:
    text = str(error)
    code = found[1] if (found := _CODE.search(text)) else None
    status = _status(text)
    if code == "NoSuchBucket":
        return StoreError("the bucket of the store does not exist: create it, or correct the store URL")
    if isinstance(error, FileNotFoundError) and pack is not None:
        return PackMissing(f"pack {pack} does not exist")
    if code in _CLOCK:
        return StoreError("the store refuses requests because the clock of this machine is wrong: set it")
    if code in _KEYS or status == "401":
        return StoreError(f"the store does not accept the server's credentials ({code or status}): correct them")
    if code in _REGION or "BareRedirect" in text:
        return StoreError("the bucket of the store is in another region: set AWS_REGION to its region")
    if status == "403":
        return StoreError(
            f"the store forbids {doing} ({code or status}): the server's credentials need permission to list, read, "
            "write and delete objects under the store URL"
        )
    if status == "507" or code in _FULL:
        return StorageFull(f"no room left in the store while {doing}")
    return StoreError(f"{doing} failed: {_reason(text, status, code)}")


def _reason(text: str, status: str | None, code: str | None) -> str:
    if status is not None and (code is not None or not status.startswith("4")):
        return f"the store answered {status} {code or ''}".strip()
    if status is not None or any(sign in text for sign in _FOREIGN):
        answer = "" if status is None else f" {status},"
        return f"the store answered{answer} not as an object store does: check its endpoint"
    if "kind: Connect" in text:
        return "the store does not answer: check its endpoint (http or https, host, port) and the network"
    return "the store does not answer"


def _status(text: str) -> str | None:
    return found[1] if (found := _STATUS.search(text)) else None
