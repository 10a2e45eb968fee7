"""The body of a commit: one JSON object a line, first the text of the commit, then what it changes."""

import base64
import binascii
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ...errors import InvalidRequest
from ...values.folder import check_path
from ...values.json_text import read_json

MAX_OPERATIONS = 20_000
"""Most changes of one commit: twice as many as a folder may have files."""

MAX_LINE = 1024 * 1024
"""Most bytes of a line. Each is parsed in one go, and a file of more than 256 KiB is sent ahead."""

MAX_TITLE, MAX_MESSAGE = 1_000, 10_000
"""Characters of a commit's text after which it is cut."""

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Add:
    """A file whose content is in the commit."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class AddSent:
    """A file that was sent ahead, or that the repository has already."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Delete:
    """The removal of a file, or of a folder, whose path then ends in ``/``."""

    path: str


Operation = Add | AddSent | Delete


@dataclass(frozen=True, slots=True)
class Asked:
    """A commit as a client asks for it. ``parent`` is the commit that it is based on, None if any will do."""

    title: str
    message: str
    parent: str | None
    operations: tuple[Operation, ...]


def is_sha256(text: object) -> bool:
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def parse_commit(lines: Iterable[bytes]) -> Asked:
    """Parse a commit. Raises InvalidRequest, with the number of the line that is wrong, and BadFolder for a path."""
    header: dict[str, Any] | None = None
    operations: list[Operation] = []
    added: set[str] = set()
    for number, line in enumerate(lines, start=1):
        key, value = _read(line, number)
        if key == "header":
            if header is not None:
                raise _refused(number, "a commit has one header")
            header = value
            continue
        operation = _operation(key, value, number)
        if not isinstance(operation, Delete):
            if operation.path in added:
                raise _refused(number, f"the file {operation.path[:200]!r} is in the commit twice")
            added.add(operation.path)
        operations.append(operation)
        if len(operations) > MAX_OPERATIONS:
            raise _refused(number, f"a commit has at most {MAX_OPERATIONS:,} changes; make several commits")
    if header is None:
        raise _refused(1, 'a commit begins with {"key": "header", "value": {"summary": ...}}')
    title, message = _text(header, "summary", 1), _text(header, "description", 1)
    parent = _text(header, "parentCommit", 1) or None
    return Asked(title[:MAX_TITLE], message[:MAX_MESSAGE], parent, tuple(operations))


def _read(line: bytes, number: int) -> tuple[str, dict[str, Any]]:
    if len(line) > MAX_LINE:
        raise _refused(number, f"it has {len(line):,} bytes, and at most {MAX_LINE:,} are allowed; send the file ahead")
    try:
        read = read_json(line)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, ValueError):
        raise _refused(number, "it is not JSON") from None
    match read:
        case {"key": str(key), "value": dict(value)}:
            return key, value
    raise _refused(number, 'an object {"key": ..., "value": {...}} is expected')


def _operation(key: str, value: dict[str, Any], number: int) -> Operation:
    match key:
        case "file":
            return Add(_path(value, number), _content(value, number))
        case "lfsFile":
            path, size = _path(value, number), value.get("size")
            if value.get("algo") != "sha256" or not is_sha256(value.get("oid")):
                raise _refused(number, "algo must be sha256, and oid the SHA-256 of the file in hexadecimal digits")
            if type(size) is not int or size < 0:
                raise _refused(number, "size must be the number of the file's bytes")
            return AddSent(path, value["oid"], size)
        case "deletedFile":
            return Delete(_path(value, number))
        case "deletedFolder":
            return Delete(_path(value, number, is_folder=True) + "/")
    raise _refused(number, f"there is no change {key[:100]!r}; use file, lfsFile, deletedFile or deletedFolder")


def _path(value: dict[str, Any], number: int, *, is_folder: bool = False) -> str:
    path = _text(value, "path", number)
    path = path.rstrip("/") if is_folder else path
    check_path(path)
    return path


def _content(value: dict[str, Any], number: int) -> bytes:
    text, encoding = _text(value, "content", number), value.get("encoding", "base64")
    if encoding != "base64":
        raise _refused(number, "encoding must be base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _refused(number, "content is not base64") from None


def _text(value: dict[str, Any], name: str, number: int) -> str:
    text = value.get(name) or ""
    if not isinstance(text, str) or "\0" in text or any("\ud800" <= one <= "\udfff" for one in text[:MAX_MESSAGE]):
        raise _refused(number, f"{name} must be text")
    return text


def _refused(number: int, why: str) -> InvalidRequest:
    return InvalidRequest(f"line {number} of the commit: {why}", code="invalid-value")
