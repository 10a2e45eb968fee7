"""Hashing an upload: digests and checksums of all its storages and of its frame.

Several threads read the file through windows of 16 MiB, each holding one window at a time. So memory does not grow with
the file, and the number of tasks does not grow with the number of storages in a window.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, wait
from dataclasses import dataclass, replace

from ..errors import HostileCheckpoint
from ..store import OpenFile
from ..store.digests import Hasher, checked_block, combine_crc32, crc32, digest_of, digest_of_blocks
from ..values.digest import BLOCK_SIZE
from ..values.folder import FolderFile
from ..values.frame import frame_spans
from ..values.manifest import MIN_BLOB_SIZE, Manifest, Storage
from ..values.span import Span
from .pack_plan import FoundBlob

SMALL = 1024 * 1024
"""Size in bytes of the largest upload that is hashed by one thread: handing it to others takes longer than hashing."""


@dataclass(frozen=True, slots=True)
class Digested:
    """A ``manifest`` with all digests and checksums filled in, and its blobs: its storages and its frame."""

    manifest: Manifest
    storages: tuple[FoundBlob, ...]
    frame: FoundBlob


@dataclass(frozen=True, slots=True)
class _Block:
    """A storage, or 16 MiB of a larger one. ``storage`` is its index in the manifest; ``span`` is in the file."""

    storage: int
    span: Span


def digest_upload(file: OpenFile, manifest: Manifest, threads: Executor) -> Digested:
    """Hash all storages of ``manifest`` in ``file``, and the frame.

    On input ``Storage.crc32`` is the CRC32 that the file declares, or 0 for none. Raises HostileCheckpoint (rule
    ``crc``) if it is wrong.
    """
    windows = list(_windows(_blocks(manifest.storages)))
    frame_at = frame_spans(manifest.size, manifest.storages)
    if manifest.size <= SMALL:
        frame = digest_frame(file, frame_at)
        answers = [_digest_window(file, window, manifest.storages) for window in windows]
    else:
        frame, answers = _digest_in_threads(file, windows, manifest.storages, frame_at, threads)
    checksums = [0] * len(manifest.storages)
    digests = [b""] * len(manifest.storages)
    for window, answer in zip(windows, answers, strict=True):
        for block, (checksum, digest) in zip(window, answer, strict=True):
            checksums[block.storage] = combine_crc32(checksums[block.storage], checksum, block.span.length)
            digests[block.storage] += digest
    found: list[FoundBlob] = []
    storages: list[Storage] = []
    for storage, checksum, blocks in zip(manifest.storages, checksums, digests, strict=True):
        check_declared(storage, checksum)
        name = digest_of_blocks(blocks) if blocks else None
        if name is not None:
            found.append(FoundBlob(name, (storage.span,), checksum, blocks))
        storages.append(replace(storage, crc32=checksum, digest=name))
    check_files(file, manifest.files, storages)
    return Digested(replace(manifest, storages=tuple(storages), frame=frame.digest), tuple(found), frame)


def _digest_in_threads(
    file: OpenFile,
    windows: Sequence[Sequence[_Block]],
    storages: Sequence[Storage],
    frame: Sequence[Span],
    threads: Executor,
) -> tuple[FoundBlob, list[list[tuple[int, bytes]]]]:
    """Hash the ``windows`` in ``threads``, and meanwhile the frame here. Return it, and the answers of the threads."""
    tasks = [threads.submit(_digest_window, file, window, storages) for window in windows]
    try:
        found = digest_frame(file, frame)
        for task in wait(tasks, return_when=FIRST_EXCEPTION).done:
            task.result()
    finally:
        # No task may outlive this call, because its caller closes the file. Tasks that have not begun are cancelled.
        wait([task for task in tasks if not task.cancel()])
    return found, [task.result() for task in tasks]


def check_declared(storage: Storage, checksum: int) -> None:
    """Raise HostileCheckpoint (rule ``crc``) if the file declares another CRC32 than its bytes have."""
    if storage.crc32 not in {0, checksum}:
        raise HostileCheckpoint(
            f"the bytes of storage {storage.key!r} do not match the CRC32 in the file",
            rule="crc",
            where=storage.key,
        )


def check_files(file: OpenFile, files: Sequence[FolderFile], storages: Sequence[Storage]) -> None:
    """Raise HostileCheckpoint (rule ``crc``) if a folder declares another CRC32 for one of its ``files`` than its bytes
    have. Those of its ``storages`` are known.
    """
    inside = sorted(storages, key=lambda storage: storage.span)
    starts = [storage.span.start for storage in inside]
    for each in files:
        if not each.crc32 or each.storage is not None:  # a file that is one storage was compared as such
            continue
        checksum, position = 0, each.span.start
        for storage in inside[bisect_left(starts, position) : bisect_left(starts, each.span.end)]:
            checksum = _crc32_of(file, Span(position, storage.span.start), checksum)
            checksum = combine_crc32(checksum, storage.crc32, storage.span.length)
            position = storage.span.end
        if _crc32_of(file, Span(position, each.span.end), checksum) != each.crc32:
            detail = f"{each.path[:200]!r} does not match its CRC32 in the zip: it was damaged, so send it again"
            raise HostileCheckpoint(detail, rule="crc", where=each.path[:200])


def _crc32_of(file: OpenFile, span: Span, checksum: int) -> int:
    """Continue a CRC32 with the bytes of ``file`` at ``span``."""
    for start in range(span.start, span.end, BLOCK_SIZE):
        checksum = crc32(file.read(Span(start, min(start + BLOCK_SIZE, span.end))), checksum)
    return checksum


def digest_frame(file: OpenFile, spans: Sequence[Span]) -> FoundBlob:
    """Hash the bytes of ``file`` at ``spans`` as one blob."""
    hasher, checksum = Hasher(), 0
    for span in spans:
        for start in range(span.start, span.end, BLOCK_SIZE):
            data = file.read(Span(start, min(start + BLOCK_SIZE, span.end)))
            hasher.update(data)
            checksum = crc32(data, checksum)
    return FoundBlob(hasher.digest, tuple(spans), checksum, hasher.blocks)


def digest_bytes(data: bytes, span: Span) -> FoundBlob:
    """Hash ``data``, the bytes at ``span`` of the upload, as a blob."""
    digest, blocks = digest_of(data)
    return FoundBlob(digest, (span,), crc32(data), blocks)


def _blocks(storages: Sequence[Storage]) -> list[_Block]:
    """The blocks of all storages, in file order. Large storages have several blocks."""
    blocks = [
        _Block(number, Span(start, min(start + BLOCK_SIZE, storage.span.end)))
        for number, storage in enumerate(storages)
        for start in range(storage.span.start, storage.span.end, BLOCK_SIZE)
    ]
    return sorted(blocks, key=lambda block: block.span)


def _windows(blocks: Iterable[_Block]) -> Iterator[list[_Block]]:
    """Runs of neighbouring blocks, each within 16 MiB of the file."""
    window: list[_Block] = []
    for block in blocks:
        if window and block.span.end - window[0].span.start > BLOCK_SIZE:
            yield window
            window = []
        window.append(block)
    if window:
        yield window


def _digest_window(file: OpenFile, window: Sequence[_Block], storages: Sequence[Storage]) -> list[tuple[int, bytes]]:
    """The CRC32 and raw digest of each block. The digest is empty for a storage that stays in the frame."""
    start = window[0].span.start
    view = file.read(Span(start, max(block.span.end for block in window)))
    answers = []
    for block in window:
        data = view[block.span.start - start : block.span.end - start]
        is_blob = storages[block.storage].span.length > MIN_BLOB_SIZE
        answers.append(checked_block(data) if is_blob else (crc32(data), b""))
    return answers
