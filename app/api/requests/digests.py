"""Digest fields of requests (RFC 9530): Content-Digest and Repr-Digest of an upload, Want-Repr-Digest of a download.

Only SHA-256 counts; other algorithms are ignored, as the RFC allows. Content-Digest and Repr-Digest of an upload mean
the same, because its body has no content coding.
"""

import base64
import re
from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Header, Request

from ...errors import InvalidRequest

_SENT = re.compile(r":([A-Za-z0-9+/]{43}=):", re.ASCII)
_WEIGHT = re.compile(r"[0-9]|10", re.ASCII)
_FIELDS = ("Content-Digest", "Repr-Digest")


async def sent_sha256(
    request: Request,
    _: Annotated[
        str | None,
        Header(
            alias="Repr-Digest",
            description="`sha-256=:BASE64:` of the file: the server compares, and keeps it as the file's `sha256`. "
            "`Content-Digest` is read alike.",
            examples=["sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"],
        ),
    ] = None,
) -> str | None:
    """Return the SHA-256, in hex, that the request says its body has. Raises InvalidRequest ``bad-digest``."""
    said = {_hex(field, value) for field in _FIELDS for value in _sha256s(request, field)}
    if len(said) > 1:
        raise InvalidRequest(
            f"the request says several SHA-256 of its body ({', '.join(sorted(said))}): send one", code="bad-digest"
        )
    return said.pop() if said else None


SentSha256 = Annotated[str | None, Depends(sent_sha256)]


async def wants_sha256(
    request: Request,
    _: Annotated[
        str | None,
        Header(
            alias="Want-Repr-Digest",
            description="`sha-256=1`: the answer has the file's SHA-256 in `Repr-Digest`. The first time, the server "
            "reads the whole file before it answers.",
            examples=["sha-256=1"],
        ),
    ] = None,
) -> bool:
    """Tell whether the request asks for the SHA-256 of the file. A malformed field asks for nothing."""
    weights = [value for value in _sha256s(request, "Want-Repr-Digest") if _WEIGHT.fullmatch(value)]
    return bool(weights) and weights[-1] != "0"


WantsSha256 = Annotated[bool, Depends(wants_sha256)]


def sha256_field(sha256: str) -> str:
    """Return the value of Repr-Digest for a SHA-256 in hex."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def _sha256s(request: Request, field: str) -> Iterator[str]:
    """Yield the values of ``sha-256`` in a field, without their parameters."""
    for line in request.headers.getlist(field):
        for member in line.split(","):
            key, _, value = member.strip().partition("=")
            if key == "sha-256":
                yield value.partition(";")[0].strip()


def _hex(field: str, value: str) -> str:
    match = _SENT.fullmatch(value)
    if match is None:
        raise InvalidRequest(
            f"{field} has {f'sha-256={value}'[:80]!r}: it must be sha-256=:BASE64:, with the base64 of the 32 bytes of "
            "the file's SHA-256 between two colons",
            code="bad-digest",
        )
    return base64.b64decode(match[1]).hex()
