"""Uploads as a form: with one part ``file`` a checkpoint file, with several a folder.

Only the second part tells that a form is a folder. A long first file has been received by then as a file of its own,
and is copied into the folder; a short one is held in memory until that is known.
"""

import asyncio
from collections.abc import AsyncIterator

from ...errors import BadFolder
from ...formats.folder.write import FolderWriter
from ...ingest.receive import SpooledUpload
from ...values.folder import PathRules
from ...values.span import Span
from .multipart import FileBegins, Multipart

HELD = 1024 * 1024
"""Bytes of the first file that are held in memory, about."""

_COPIED = 4 * 1024 * 1024
"""Bytes of the first file that are copied at a time."""


class Form:
    """A form that is read once: ``begin``; ``first``, unless ``is_folder``; then ``folder``, if ``is_folder``."""

    def __init__(self, form: Multipart, body: AsyncIterator[bytes]) -> None:
        self._arriving = form.files(body)
        self._begun: list[FileBegins] = []
        self._held = bytearray()

    @property
    def is_folder(self) -> bool:
        """True once a second file has begun."""
        return len(self._begun) > 1

    async def begin(self) -> None:
        """Read until a second file begins, the form ends, or the first file has turned out to be long."""
        async for data in self._of_first():
            self._held += data
            if len(self._held) >= HELD:
                return

    async def first(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the first file."""
        held, self._held = self._held, bytearray()
        yield bytes(held)
        async for data in self._of_first():
            yield data

    async def folder(self, first: SpooledUpload | None) -> AsyncIterator[bytes]:
        """Yield the folder of all files as a zip. ``first`` is the first file, if it was received by itself. Raises
        BadFolder for paths that cannot be kept.
        """
        writer, rules = FolderWriter(), PathRules()
        yield writer.begin(_checked(self._begun[0], rules))
        async for data in self._again(first):
            writer.add(data)
            yield data
        yield writer.end() + writer.begin(_checked(self._begun[1], rules))
        async for each in self._arriving:
            if isinstance(each, bytes):
                writer.add(each)
                yield each
            else:
                yield writer.end() + writer.begin(_checked(each, rules))
        yield writer.end() + writer.finish()

    async def _of_first(self) -> AsyncIterator[bytes]:
        async for each in self._arriving:
            if isinstance(each, bytes):
                yield each
            else:
                self._begun.append(each)
                if self.is_folder:
                    return

    async def _again(self, first: SpooledUpload | None) -> AsyncIterator[bytes]:
        """Yield the bytes of the first file once more."""
        if first is None:
            yield bytes(self._held)
            return
        for start in range(0, first.size, _COPIED):
            yield await asyncio.to_thread(_read, first, Span(start, min(start + _COPIED, first.size)))


def _read(upload: SpooledUpload, span: Span) -> bytes:
    return bytes(upload.file.read(span))


def _checked(begun: FileBegins, rules: PathRules) -> str:
    """Return the path of a file in the folder."""
    if begun.filename is None:
        raise BadFolder(
            "a form with several parts named 'file' is a folder: give each a file name, its path in the folder",
            rule="path",
        )
    try:
        path = begun.filename.decode()
    except UnicodeDecodeError:
        shown = begun.filename[:200].decode("utf-8", "replace")
        raise BadFolder(f"the path {shown!r} cannot be stored: it is not UTF-8", rule="path", where=shown) from None
    rules.check(path)
    return path
