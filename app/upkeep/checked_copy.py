"""Copying of packs for a backup and a restore. It keeps what can be kept of a damaged pack, and says what is lost.

A pack never changes, so a copy of it stays right. A failure of the target ends the work, and so does a source that
cannot be reached; one unreadable pack does not.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..catalog import Catalog, audit
from ..catalog.audit import BlobRow, PackRow
from ..errors import DamagedBlob, PackMissing, StoreError
from ..store import PackStore
from ..store.verified import verified_blocks
from ..values.span import Span
from .migrate_store import SIDE_BY_SIDE, Copied, copy_pack, size_in

USERS_NAMED = 5
"""Most checkpoints named with a pack that is lost."""


class _Unreadable(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Source:
    """The store that is copied from. ``on_read`` is called with the number of bytes after each read."""

    store: PackStore
    on_read: Callable[[int], None]

    def read(self, name: str, span: Span) -> memoryview:
        """Read as ``PackStore.read``. Raises _Unreadable if only this pack fails."""
        for is_last in (False, True):
            try:
                data = self.store.read(name, span, ahead=True)
            except (PackMissing, DamagedBlob) as error:
                raise _Unreadable(error.detail) from error
            except StoreError as error:
                self.store.ping()  # raises if the whole store fails
                if is_last:
                    raise _Unreadable(error.detail) from error
            else:
                self.on_read(len(data))
                return data
        raise AssertionError


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
        is_there = size_in(self.target, pack.name) == pack.size
        if is_there:
            damage = () if self.verified(pack.name) else self._damage(self.target, pack)
            if not damage or self._damage(self.source, pack):
                return Copied(pack.name, 0, damage[0] if damage else None)
        try:
            copy_pack(_Source(self.source, self.on_read), self.target, pack)
        except _Unreadable as error:
            if not self.is_kept(pack):
                raise StoreError(f"pack {pack.name} was removed meanwhile; run the backup again") from error
            return Copied(pack.name, 0, f"{error}, needed by {self._users(list(self._blobs(pack)))}")
        damage = self._damage(self.target, pack)
        if damage and not self._damage(self.source, pack):
            raise StoreError(f"the copy of pack {pack.name} differs from what was written; check the disk it is on")
        return Copied(pack.name, pack.size, damage[0] if damage else None)

    def _damage(self, store: PackStore, pack: PackRow) -> tuple[str, ...]:
        """Verify the blobs of a pack. Return a text that names those that are damaged, if any is."""
        damaged = []
        for row in self._blobs(pack):
            try:
                for _ in verified_blocks(store, row.blob):
                    pass
            except (PackMissing, DamagedBlob):
                damaged.append(row)
        if not damaged:
            return ()
        return (f"{len(damaged):,} of its blobs are damaged, needed by {self._users(damaged)}",)

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
