"""Copying of packs for a backup and a restore. It keeps what can be kept of a damaged pack, and says what is lost.

A pack never changes, so a copy of it stays right. A failure of the target ends the work, and so does a source that
cannot be reached; one unreadable pack does not. Bytes that cannot be read are zeros in the copy.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ..catalog import Catalog, audit
from ..catalog.audit import BlobRow, PackRow
from ..errors import DamagedBlob, PackMissing, StoreError
from ..store import PackStore
from ..store.verified import verified_blocks
from ..values.span import Span
from .migrate_store import NOT_THERE, SIDE_BY_SIDE, Copied, copy_pack, delete_copy, size_in

USERS_NAMED = 5
"""Most checkpoints named with a pack that is lost."""


SMALLEST = 256 * 1024
"""Size of the pieces, in bytes, in which bytes are read that cannot be read in one go."""

MOST_LOST = 64
"""After as many such pieces of a pack are lost, bytes are no longer read in pieces: each may take a while to fail."""


class _Unreadable(Exception):
    pass


@dataclass(slots=True)
class _Source:
    """A source of one pack, of ``size`` bytes. ``on_read`` is called with the number of bytes after each read.

    ``lost`` is the number of bytes that could not be read.
    """

    store: PackStore
    size: int
    on_read: Callable[[int], None]
    lost: int = field(default=0, init=False)
    _lost_pieces: int = field(default=0, init=False)

    def read(self, name: str, span: Span) -> memoryview:
        """Read as ``PackStore.read``, but return zeros for bytes that cannot be read. Raises _Unreadable if the pack is
        missing, or at its end if not a byte of it could be read; StoreError if the whole store fails.
        """
        is_piece = span.length <= SMALLEST
        for _ in range(2 if is_piece else 1):
            try:
                data = self.store.read(name, span, ahead=True)
            except PackMissing as error:
                raise _Unreadable(error.detail) from error
            except StoreError as error:
                self.store.ping()  # raises if the whole store fails
                reason = error
            else:
                self.on_read(len(data))
                return data
        if not is_piece and self._lost_pieces < MOST_LOST:
            middle = span.start + span.length // 2
            halves = Span(span.start, middle), Span(middle, span.end)
            return memoryview(b"".join(self.read(name, half) for half in halves))
        self.lost += span.length
        self._lost_pieces += 1
        if self.lost == self.size:
            raise _Unreadable(reason.detail) from reason
        return memoryview(bytes(span.length))


@dataclass(frozen=True, slots=True)
class CheckedCopy:
    """A copy of packs from ``source`` to ``target``. ``rows`` is the catalog that says what is in the packs.

    Packs in ``target`` that are ``verified`` are not read again. ``is_kept`` tells whether the source still has to have
    a pack.
    """

    rows: Catalog
    source: PackStore
    target: PackStore
    verified: Callable[[str], bool]
    is_kept: Callable[[PackRow], bool]
    on_read: Callable[[int], None]

    def run(self, packs: Sequence[PackRow]) -> Iterator[Copied]:
        """Copy ``packs``, and yield the result of each. Raises StoreError."""
        threads = ThreadPoolExecutor(SIDE_BY_SIDE, "copy")
        try:
            yield from threads.map(self._copied, packs)
        finally:
            threads.shutdown(cancel_futures=True)

    def _copied(self, pack: PackRow) -> Copied:
        if self._size_in_target(pack) == pack.size:
            damage = None if self.verified(pack.name) else self._damage(self.target, pack)
            if damage is None or self._damage(self.source, pack) is not None:
                return Copied(pack.name, 0, damage)
        source = _Source(self.source, pack.size, self.on_read)
        try:
            copy_pack(source, self.target, pack)
        except _Unreadable as error:
            if not self.is_kept(pack):
                raise StoreError(f"pack {pack.name} was removed meanwhile; run the backup again") from error
            return Copied(pack.name, 0, f"{error}, needed by {self._users(list(self._blobs(pack)))}")
        damage = self._damage(self.target, pack)
        if damage is not None and not source.lost and self._damage(self.source, pack) is None:
            delete_copy(self.target, pack.name)
            raise StoreError(f"the copy of pack {pack.name} differs from what was written; check the disk it is on")
        return Copied(pack.name, pack.size, damage)

    def _size_in_target(self, pack: PackRow) -> int:
        try:
            return size_in(self.target, pack.name)
        except DamagedBlob:  # its list of objects
            return NOT_THERE

    def _damage(self, store: PackStore, pack: PackRow) -> str | None:
        """Verify the blobs of a pack. Return a text that names those that are damaged or cannot be read, None if there
        are none. Raises StoreError if the whole store fails.
        """
        damaged = []
        for row in self._blobs(pack):
            try:
                for _ in verified_blocks(store, row.blob):
                    pass
            except (PackMissing, DamagedBlob):
                damaged.append(row)
            except StoreError:
                store.ping()  # raises if the whole store fails
                damaged.append(row)
        return f"{len(damaged):,} of its blobs are damaged, needed by {self._users(damaged)}" if damaged else None

    def _blobs(self, pack: PackRow) -> Iterator[BlobRow]:
        return audit.blobs_in(self.rows, pack.id)

    def _users(self, lost: Sequence[BlobRow]) -> str:
        """Name some checkpoints that need blobs."""
        users: dict[str, None] = {}
        with self.rows.read() as s:
            for row in lost:
                users.update(dict.fromkeys(audit.users_of(s, row.id, USERS_NAMED + 1)))
                if len(users) > USERS_NAMED:
                    break
        named = list(users)
        return ", ".join(named[:USERS_NAMED]) + (", ..." if named[USERS_NAMED:] else "") if named else "no checkpoint"
