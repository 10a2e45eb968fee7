"""The arrived blocks of a split file, and its manifest made of them and of the blobs stored before."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace

from ..catalog.uploads import Part
from ..errors import InvalidRequest
from ..store import OpenFile
from ..store.digests import combine_crc32, crc32, digest_of_blocks
from ..store.keys import object_name
from ..store.pack_list import Stretch
from ..values.checkpoint import Blob
from ..values.digest import Digest
from ..values.frame import frame_spans
from ..values.manifest import MIN_BLOB_SIZE, Manifest
from ..values.span import Span
from ..values.split import Split
from .digest import Digested, check_declared, check_files, digest_frame
from .pack_plan import FoundBlob


def storage_digests(split: Split) -> Sequence[Digest]:
    """The digests of the storages, in order."""
    return [digest_of_blocks(split.digests(split.numbers(piece))) for piece in range(1, len(split.storages) + 1)]


class Arrived:
    """The blocks of ``split`` that arrived in ``parts``. The frame always has to arrive, because it is parsed.

    ``digests`` are the digests of the storages, in order.
    """

    def __init__(self, split: Split, parts: Sequence[Part], digests: Sequence[Digest]) -> None:
        self._split = split
        self._here = bytearray(split.count)
        self._checksums = bytearray(4 * split.count)
        self._parts = sorted((part.numbers for part in parts), key=lambda numbers: (numbers.start, -numbers.stop))
        for part in parts:
            numbers = part.numbers
            self._here[numbers.start : numbers.stop] = b"\1" * len(numbers)
            self._checksums[4 * numbers.start : 4 * numbers.stop] = part.checksums
        self.digests = digests
        self.lengths = {digest: span.length for digest, span in zip(digests, split.storages, strict=True)}
        """The lengths of the storages by digest. Each digest has one length."""

    def stretches(self) -> Iterator[tuple[range, Stretch]]:
        """Yield the blocks that have arrived, each once and in order, with their place in the objects of the parts."""
        first = 0
        for part in self._parts:
            numbers = range(max(first, part.start), part.stop)
            if numbers:
                before = self._split.length(range(part.start, numbers.start))
                yield numbers, Stretch(object_name(part), before, self._split.length(numbers))
                first = part.stop

    def joined(self) -> tuple[list[Stretch], dict[int, int]]:
        """Return the objects' stretches, which joined make a pack, and the place in it of each storage that has begun
        to arrive, by its start in the file. The frame is at 0.
        """
        stretches, places, size = [], {}, 0
        for numbers, stretch in self.stretches():
            for number in numbers:
                piece = self._split.piece(number)
                if piece and number == self._split.numbers(piece).start:
                    places[self._split.storages[piece - 1].start] = size
                size += self._split.length(range(number, number + 1))
            stretches.append(stretch)
        return stretches, places

    def missing(self, known: Container[Digest]) -> tuple[range, ...]:
        """The blocks still to be sent, for each storage that is not ``known``. Equal storages need to be sent once."""
        runs: list[range] = []
        seen: set[Digest] = set()
        for piece, digest in enumerate((None, *self.digests)):
            if digest is not None and (digest in known or digest in seen):
                continue
            if digest is not None:
                seen.add(digest)
            for number in self._split.numbers(piece):
                if self._here[number] or not self._split.length(range(number, number + 1)):
                    continue
                if runs and runs[-1].stop == number:
                    runs[-1] = range(runs[-1].start, number + 1)
                else:
                    runs.append(range(number, number + 1))
        return tuple(runs)

    def absent(self, known: Container[Digest]) -> tuple[Digest, ...]:
        """The digests of the blobs with missing blocks."""
        pieces = (self._split.piece(run.start + i) for run in self.missing(known) for i in range(len(run)))
        frame = digest_of_blocks(self._split.digests(self._split.numbers(0)))
        return tuple(dict.fromkeys(self.digests[piece - 1] if piece else frame for piece in pieces))

    def found(self) -> list[FoundBlob]:
        """The storages that have arrived in full."""
        found = []
        for piece, (span, digest) in enumerate(zip(self._split.storages, self.digests, strict=True), start=1):
            numbers = self._split.numbers(piece)
            if all(self._here[numbers.start : numbers.stop]):
                found.append(FoundBlob(digest, (span,), self._checksum(numbers), self._split.digests(numbers)))
        return found

    def holes(self) -> list[tuple[Span, Digest]]:
        """The storages that have not arrived in full."""
        here = {blob.spans[0] for blob in self.found()}
        pairs = zip(self._split.storages, self.digests, strict=True)
        return [(span, digest) for span, digest in pairs if span not in here]

    def _checksum(self, numbers: range) -> int:
        checksum = 0
        for number in numbers:
            block = int.from_bytes(self._checksums[4 * number : 4 * number + 4], "little")
            checksum = combine_crc32(checksum, block, self._split.length(range(number, number + 1)))
        return checksum

    def digested(self, file: OpenFile, manifest: Manifest, known: Mapping[Digest, Blob]) -> Digested:
        """Return ``manifest`` with all digests and checksums filled in, and its blobs that are in ``file``.

        Raises InvalidRequest (``split-mismatch``) unless its storages are the announced ones, and HostileCheckpoint
        (rule ``crc``).
        """
        check_split(self._split, manifest)
        found = self.found()
        checksums = {digest: blob.crc32 for digest, blob in known.items()} | {each.digest: each.crc32 for each in found}
        digests = dict(zip(self._split.storages, self.digests, strict=True))
        storages = []
        for storage in manifest.storages:
            digest = digests.get(storage.span)
            checksum = crc32(file.read(storage.span)) if digest is None else checksums[digest]
            check_declared(storage, checksum)
            storages.append(replace(storage, crc32=checksum, digest=digest))
        check_files(file, manifest.files, storages)
        frame = digest_frame(file, frame_spans(manifest.size, manifest.storages))
        return Digested(replace(manifest, storages=tuple(storages), frame=frame.digest), tuple(found), frame)


def check_split(split: Split, manifest: Manifest) -> None:
    """Raise InvalidRequest ``split-mismatch`` unless ``split`` has exactly the large storages of ``manifest``."""
    read = sorted(storage.span for storage in manifest.storages if storage.span.length > MIN_BLOB_SIZE)
    if read != list(split.storages):
        differing = set(read) ^ set(split.storages)
        first = min(differing)
        raise InvalidRequest(
            f"the file has {len(read)} storages of more than {MIN_BLOB_SIZE} bytes, and {len(differing)} differ from "
            f"the announced ones, for example [{first.start}, {first.end}). Send the file as a plain upload",
            code="split-mismatch",
        )
