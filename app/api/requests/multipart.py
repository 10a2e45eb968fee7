"""A streaming parser of multipart/form-data: parts named ``file`` are streams, the other parts are short fields."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeAlias

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ...errors import IncompleteUpload, InvalidRequest

MAX_FIELD_BYTES = 64 * 1024
MAX_FIELDS = 1_000
MAX_FORM_BYTES = 1024 * 1024
"""Most bytes of all fields, with their names."""

Field: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class FileBegins:
    """The start of a part ``file``; its bytes follow. ``filename`` are the bytes of its file name, if it has one."""

    filename: bytes | None


def boundary_of(content_type: str | None) -> bytes | None:
    """Return the boundary of a multipart/form-data body, None for any other body."""
    kind, options = parse_options_header(content_type)
    return options.get(b"boundary") if kind == b"multipart/form-data" else None


class Multipart:
    """One multipart body. Iterate over ``files()`` once; then ``fields`` holds the other parts, in order."""

    def __init__(self, boundary: bytes) -> None:
        self.fields: list[Field] = []
        self._name: str | None = None
        self._header: list[bytes] = []
        self._value: list[bytes] = []
        self._disposition = b""
        self._text = bytearray()
        self._arrived: list[bytes | FileBegins] = []
        self._files = 0
        self._size = 0
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._header.append(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.append(data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                    "on_end": self._finish,
                },
            )
        except FormParserError as error:
            raise _malformed(str(error)) from error

    @property
    def has_ended(self) -> bool:
        """True once the last boundary has come."""
        return self._ended

    async def files(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes | FileBegins]:
        """Yield the beginning and the bytes of each part ``file``. Raises InvalidRequest ``malformed-request`` for a
        body that is not multipart or has no such part, and IncompleteUpload for one that ends before its last boundary.
        """
        async for chunk in body:
            try:
                self._parser.write(chunk)
            except FormParserError as error:
                raise _malformed(str(error)) from error
            arrived, self._arrived = self._arrived, []
            for part in arrived:
                yield part
        if not self._ended:
            raise IncompleteUpload("the multipart body ends before its closing boundary")
        if not self._files:
            raise _malformed("it has no part named 'file'")

    def _begin(self) -> None:
        self._disposition = b""
        self._text.clear()

    def _end_header(self) -> None:
        if b"".join(self._header).lower() == b"content-disposition":
            self._disposition = b"".join(self._value)
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise _malformed("a part has no name")
        self._name = options[b"name"].decode(errors="replace")
        if self._name == "file":
            self._files += 1
            self._arrived.append(FileBegins(options.get(b"filename")))
        elif len(self.fields) >= MAX_FIELDS:
            raise _malformed(f"it has more than {MAX_FIELDS} fields")

        self._add(len(self._name))

    def _add(self, count: int) -> None:
        self._size += count
        if self._size > MAX_FORM_BYTES:
            raise _malformed(f"its fields have more than {MAX_FORM_BYTES:,} bytes in all")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self._arrived.append(data[start:end])
        elif len(self._text) + end - start > MAX_FIELD_BYTES:
            raise _malformed(f"the field {self._name!r} is longer than {MAX_FIELD_BYTES} bytes")
        else:
            self._add(end - start)
            self._text += data[start:end]

    def _end(self) -> None:
        if self._name is not None and self._name != "file":
            try:
                self.fields.append((self._name, self._text.decode()))
            except UnicodeDecodeError as error:
                raise _malformed(f"the field {self._name!r} is not UTF-8") from error
        self._name = None

    def _finish(self) -> None:
        self._ended = True


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(f"the body is not valid multipart/form-data: {why}")
