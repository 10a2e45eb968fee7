"""CRC32s that no upload carried: of parts of storages, and of conversions.

Each CRC32 is computed once and kept in the catalog. The CRC32s of parts are needed before a plan is used. That of a
conversion is learned while its bytes are sent, and computed separately only if a range begins after them.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256

from ..catalog import checksums
from ..catalog.catalog import Catalog
from ..concurrency.cancellation import expect
from ..errors import StorageFull
from ..store.digests import crc32
from ..values.conversion import Conversion
from ..values.span import Span
from ..values.virtual_file import VirtualFile
from .read import BlobReader
from .spans import BlobMap
from .windows import Strip

AT_ONCE = 5_000
"""Rows written in one transaction."""

LONGEST_NAME = 1_000
"""Characters of a checksum's name. Databases limit what they index."""

Crc32s = dict[Conversion, int]


class Checksums:
    """CRC32s for files made of one checkpoint, whose bytes ``reader`` reads from ``blobs``."""

    def __init__(self, catalog: Catalog, namespace: str, reader: BlobReader, blobs: BlobMap) -> None:
        self._catalog = catalog
        self._namespace = namespace
        self._reader = reader
        self._blobs = blobs

    def filled(self, file: VirtualFile) -> tuple[VirtualFile, Crc32s]:
        """Return the file with the CRC32s of parts, computed or looked up; and the known CRC32s of conversions."""
        parts = {span: self._name(span) for _, span in file.checksums}
        cast = {conversion: self._name(conversion.source, conversion) for conversion in file.checksums_of()}
        if not parts and not cast:
            return file, {}
        with self._catalog.read() as session:
            known = checksums.get(session, self._namespace, [*parts.values(), *cast.values()])
        unknown = [span for span, name in parts.items() if name not in known]
        expect(sum(span.length for span in unknown))
        fresh = {span: self._reader.crc32_of(self._blobs, span) for span in unknown}
        self._put([self._kept(parts[span], span, value) for span, value in fresh.items()])
        values = {span: fresh[span] if span in fresh else known[name] for span, name in parts.items()}
        return file.filled(values), {conversion: known[name] for conversion, name in cast.items() if name in known}

    def keep(self, learned: Crc32s) -> None:
        self._put([self._kept(self._name(one.source, one), one.source, value) for one, value in learned.items()])

    def converted(self, conversion: Conversion) -> Iterator[memoryview]:
        """Yield a conversion's output, a strip at a time."""
        return self._reader.converted(self._blobs, conversion)

    def _put(self, rows: Sequence[checksums.Checksum]) -> None:
        """Store rows, unless storage is full: a missing CRC32 is computed again, and no download needs the row."""
        for start in range(0, len(rows), AT_ONCE):
            with suppress(StorageFull), self._catalog.write(self._namespace) as session:
                checksums.put(session, self._namespace, rows[start : start + AT_ONCE])

    def _kept(self, name: str, span: Span, value: int) -> checksums.Checksum:
        return checksums.Checksum(name, next(self._blobs.resolve(span)).held_in, value)

    def _name(self, span: Span, conversion: Conversion | None = None) -> str:
        """Name bytes by the blobs that hold them, so that checkpoints that share a blob share its checksums."""
        where = ",".join(f"{blob.digest}[{blob.span.start}:{blob.span.end}]" for blob in self._blobs.resolve(span))
        if len(where) > LONGEST_NAME:  # of many chunks
            where = f"sha256:{sha256(where.encode()).hexdigest()}"
        if conversion is None:
            return where
        order = "" if conversion.byteorder == "little" else " big"
        return f"{where} {conversion.dtype.name}>{conversion.to.name}{order}"


class Following:
    """CRC32s of one download's conversions, learned as its strips are sent. Downloads share ``known``."""

    def __init__(self, checksums: Checksums, known: Crc32s) -> None:
        self._checksums = checksums
        self._known = known
        self._fresh: Crc32s = {}
        self._now: Conversion | None = None
        self._done, self._value = 0, 0

    def follow(self, strip: Strip, data: memoryview) -> None:
        """Add ``data``, the bytes sent of ``strip``."""
        conversion = strip.conversion
        position = strip.first * conversion.to.itemsize + strip.span.start
        if not position:
            self._now, self._done, self._value = conversion, 0, 0
        if self._now != conversion or self._done != position or conversion in self._known:
            return
        self._value = crc32(data, self._value)
        self._done += len(data)
        if self._done == conversion.size:
            self._known[conversion] = self._fresh[conversion] = self._value

    def find_out(self, conversion: Conversion) -> Iterator[None]:
        """Compute a checksum that ``follow`` did not learn, a strip at a time."""
        if conversion not in self._known:
            value = 0
            for data in self._checksums.converted(conversion):
                value = crc32(data, value)
                yield
            self._known[conversion] = self._fresh[conversion] = value

    def of(self, conversion: Conversion) -> int:
        """Return a learned checksum."""
        return self._known[conversion]

    def keep(self) -> None:
        """Store the learned checksums for other downloads."""
        if self._fresh:
            self._checksums.keep(self._fresh)
            self._fresh = {}
