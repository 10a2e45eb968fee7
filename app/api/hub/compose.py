"""The folder of a commit, made of the head's files and of what the commit changes, and streamed as one zip."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial

from ...catalog import hub
from ...errors import Gone, InvalidRequest, PackMissing
from ...formats.folder.write import FolderWriter
from ...values.draft import DraftFile
from ...values.folder import PathRules, folders_of
from ...values.span import Span
from ..services import Services
from .commit_body import Add, AddSent, Asked, Delete
from .head import Head

_WINDOW = 4 * 1024 * 1024
"""Bytes of a file that are read at a time."""


@dataclass(frozen=True, slots=True)
class Given:
    """A file whose content was in a commit."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)


@dataclass(frozen=True, slots=True)
class Sent:
    """A file that was sent ahead and is all of a pack."""

    size: int
    sha256: str
    pack: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that the head has under ``path``."""

    size: int
    path: str


Source = Given | Sent | Kept


def planned(services: Services, head: Head, asked: Asked) -> dict[str, Source]:
    """Return the files after a commit, by path, sorted. What it deletes goes before what it adds. Blocks.

    Raises InvalidRequest and Gone for a file that was not sent, or is no longer kept, and BadFolder for paths that
    clash.
    """
    files: dict[str, Source] = {}
    sent = {each.sha256: each.size for each in asked.operations if isinstance(each, AddSent)}
    drafted = {} if head.draft is None else head.draft.files
    sent |= {each.sha256: each.size for each in drafted.values() if each.sha256 is not None}
    find = _Finder(services, head, sent)
    for path, file in drafted.items():
        files[path] = Given(file.content) if file.content is not None else find(path, file.sha256 or "", file.size)
    files |= {path: Kept(file.size, path) for path, file in head.files.items()}
    deleted = {each.path for each in asked.operations if isinstance(each, Delete)}
    files = {path: source for path, source in files.items() if deleted.isdisjoint(_names_of(path))}
    for each in asked.operations:
        match each:
            case Add():
                files[each.path] = Given(each.content)
            case AddSent() if head.sha256s.get(each.path) == each.sha256:
                files[each.path] = Kept(head.files[each.path].size, each.path)
            case AddSent():
                files[each.path] = find(each.path, each.sha256, each.size)
    rules = PathRules()
    for path in files:
        rules.check(path)
    return dict(sorted(files.items()))


class _Finder:
    """Finder of files that a commit names by their SHA-256: sent ahead, or in the head."""

    def __init__(self, services: Services, head: Head, sent: Mapping[str, int]) -> None:
        with services.catalog.read() as session:
            self._staged = hub.staged(session, head.model.namespace, sent)
        self._kept = {sha256: path for path, sha256 in head.sha256s.items() if path in head.files}
        self._head = head

    def __call__(self, path: str, sha256: str, size: int) -> Source:
        source: Source
        if (staged := self._staged.get(sha256)) is not None:
            source = Sent(staged.size, sha256, staged.pack)
        elif (kept := self._kept.get(sha256)) is not None:
            source = Kept(self._head.files[kept].size, kept)
        else:
            raise gone(path)
        if source.size != size:
            detail = f"the file {path[:200]!r} has {source.size:,} bytes, not {size:,}"
            raise InvalidRequest(detail, code="invalid-value")
        return source


def gone(path: str) -> Gone:
    return Gone(
        f"the content of {path[:200]!r} was never sent, or more than a day ago: upload the file again",
        code="upload-gone",
    )


def sha256s_of(head: Head, files: Mapping[str, Source]) -> dict[str, str]:
    """Return the hashes that are known of the files, by path."""
    found = {}
    for path, source in files.items():
        sha256 = source.sha256 if isinstance(source, Sent) else None
        if isinstance(source, Kept):
            sha256 = head.sha256s.get(source.path)
        if sha256 is not None:
            found[path] = sha256
    return found


def drafted(files: Mapping[str, Source]) -> dict[str, DraftFile]:
    """Return the files as those of a draft. None of them is a file of a checkpoint."""
    found = {}
    for path, source in files.items():
        if isinstance(source, Given):
            found[path] = DraftFile(source.size, source.content)
        elif isinstance(source, Sent):
            found[path] = DraftFile(source.size, sha256=source.sha256)
    return found


async def changes(services: Services, head: Head, files: Mapping[str, Source]) -> bool:
    """Tell whether ``files`` are others than those of the head."""
    if head.checkpoint is None:
        return head.draft is None or head.draft.files != drafted(files)
    if files.keys() != head.files.keys():
        return True
    for path, source in files.items():
        if source == Kept(head.files[path].size, path):
            continue
        if not isinstance(source, Given) or source.size != head.files[path].size:
            return True
        if b"".join([chunk async for chunk in _kept(services, head, path)]) != source.content:
            return True
    return False


async def folder(services: Services, head: Head, files: Mapping[str, Source]) -> AsyncIterator[bytes]:
    """Yield the zip of the files. Raises Gone, and errors of reading the head."""
    writer = FolderWriter()
    for path, source in files.items():
        yield writer.begin(path)
        async for chunk in _chunks(services, head, path, source):
            writer.add(chunk)
            yield chunk
        yield writer.end()
    yield writer.finish()


async def _chunks(services: Services, head: Head, path: str, source: Source) -> AsyncIterator[bytes]:
    match source:
        case Given(content):
            yield content
        case Sent(size, _, pack):
            for start in range(0, size, _WINDOW):
                span = Span(start, min(start + _WINDOW, size))
                try:
                    yield bytes(await asyncio.to_thread(services.store.read, pack, span))
                except PackMissing:
                    raise gone(path) from None
        case Kept():
            async for chunk in _kept(services, head, source.path):
                yield chunk


async def _kept(services: Services, head: Head, path: str) -> AsyncIterator[bytes]:
    assert head.checkpoint is not None  # noqa: S101 - only a checkpoint has files
    download = await services.plans.run(partial(services.deliver.file_at, head.checkpoint, path))
    async for views in download.windows(0, download.size):
        for view in views:
            yield bytes(view)


def _names_of(path: str) -> list[str]:
    """Return a path, and the folders that it lies in, with the ``/`` at their ends."""
    return [path, *(f"{folder}/" for folder in folders_of(path))]
