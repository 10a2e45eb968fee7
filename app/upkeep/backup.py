"""Backups of catalog and packs, beside running servers.

A backup takes a lease, which keeps sweeps from deleting packs, then copies the catalog, then the packs that the copy
refers to. It counts once its mark is written. Then backups that are not kept any longer are removed, and last the packs
that no backup refers to. After a crash at any point, all backups that were finished are whole.
"""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

from ..catalog import Catalog, audit, copies, leases
from ..catalog.audit import PackRow
from ..catalog.migrate import REVISION
from ..errors import StateroomError, StorageFull
from ..store import LocalPackStore, PackStore
from ..store.keys import area_of
from ..version import server_version
from .backup_folder import Backup, BackupFolder, file_digest
from .checked_copy import CheckedCopy
from .migrate_store import Copied, is_there

_log = logging.getLogger("stateroom.backup")

LEASE_SECONDS = 600.0
RENEWED_EVERY = 60.0
"""Seconds. A backup that is killed keeps bytes from being freed for LEASE_SECONDS."""


@dataclass(slots=True)
class Progress:
    """Receives the progress of a copy: ``plan`` its packs and bytes, then ``read`` bytes, and each ``copied`` pack."""

    plan: Callable[[int, int], None] = lambda _packs, _bytes: None
    read: Callable[[int], None] = lambda _bytes: None
    copied: Callable[[Copied], None] = lambda _copied: None


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was just finished, and what was removed after it: no packs while ``strange`` names are beside the
    backups.
    """

    backup: Backup
    removed_backups: int
    removed_packs: int
    strange: list[str]


@dataclass(slots=True)
class _Tally:
    packs: int = 0
    nbytes: int = 0
    problems: dict[str, str] = field(default_factory=dict)

    def add(self, copied: Copied) -> None:
        self.packs += copied.nbytes > 0
        self.nbytes += copied.nbytes
        if copied.problem is not None:
            self.problems[copied.pack] = copied.problem


def make_backup(catalog: Catalog, store: PackStore, folder: BackupFolder, keep: int, progress: Progress) -> Made:
    """Make a backup, and keep the ``keep`` newest. Raises StateroomError; then the backups before it are whole."""
    folder.make()
    with folder.held(), saying_where_it_is_full():
        folder.remove(folder.unfinished())
        target = LocalPackStore(folder.root, durable=folder.durable)
        began = datetime.now(UTC)
        verified = _verified(folder)
        with packs_kept(catalog, f"{socket.gethostname()} {folder.root.resolve()}"):
            backup_id = folder.begin(began)
            file = folder.catalog(backup_id)
            copies.save(catalog, file, durable=folder.durable)
            with closing(copies.opened(file)) as rows:
                packs = [pack for pack in audit.all_packs(rows) if pack.sealed]
                models, checkpoints = copies.counts(rows)
                nbytes = sum(pack.size for pack in packs)
                progress.plan(len(packs), nbytes)

                def is_kept(pack: PackRow) -> bool:
                    return is_there(catalog, pack)

                tally = _Tally()
                copy = CheckedCopy(rows, store, target, verified.__contains__, is_kept, progress.read)
                for copied in copy.run(packs):
                    tally.add(copied)
                    progress.copied(copied)
        size, digest = file_digest(file)
        backup = Backup(
            id=backup_id,
            version=server_version(),
            revision=REVISION,
            began_at=began.isoformat(timespec="seconds"),
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            models=models,
            checkpoints=checkpoints,
            catalog_bytes=size,
            catalog_blake3=digest,
            packs=len(packs),
            pack_bytes=nbytes,
            new_packs=tally.packs,
            new_bytes=tally.nbytes,
            problems=tally.problems,
        )
        folder.finish(backup)
        others = [each.id for each in folder.all() if each.id != backup_id]
        old = others[: max(0, len(others) - keep + 1)]
        folder.remove(old)
        strange = folder.strange()
        return Made(backup, len(old), 0 if strange else _remove_unneeded(folder, target), strange)


def _verified(folder: BackupFolder) -> set[str]:
    """Return the packs that need not be read again: a finished backup has them, and none says that they are damaged."""
    verified: set[str] = set()
    damaged: set[str] = set()
    for backup in folder.all():
        damaged.update(backup.problems)
        try:
            with closing(copies.opened(folder.catalog(backup.id))) as rows:
                verified.update(pack.name for pack in audit.all_packs(rows) if pack.sealed)
        except StateroomError as error:
            _log.warning("the catalog of backup %s cannot be read; restore another one: %s", backup.id, error)
    return verified - damaged


def _remove_unneeded(folder: BackupFolder, store: LocalPackStore) -> int:
    """Remove the packs that no backup refers to, and return their number."""
    needed: set[str] = set()
    for backup in folder.all():
        with closing(copies.opened(folder.catalog(backup.id))) as rows:
            needed.update(area_of(pack.name) for pack in audit.all_packs(rows))
    unneeded = [stored.name for stored in store.walk() if area_of(stored.name) not in needed]
    for name in unneeded:
        store.delete(name)
    return len(unneeded)


@contextmanager
def packs_kept(catalog: Catalog, holder: str) -> Iterator[None]:
    """Keep sweeps from deleting packs inside the block. The same ``holder`` takes over the lease of its last run."""
    name = leases.BACKUP + sha256(holder.encode()).hexdigest()[:32]
    with catalog.write() as w:  # alone: a sweep has either seen it, or given up its packs before
        leases.take(w, name, name, LEASE_SECONDS)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEWED_EVERY):
            try:
                with catalog.write_own_rows() as w:
                    leases.take(w, name, name, LEASE_SECONDS)
            except StateroomError as error:
                _log.warning("the lease of the backup could not be renewed, and will be tried again: %s", error)

    renewal = threading.Thread(target=renew, name="backup-lease", daemon=True)
    renewal.start()
    try:
        yield
    finally:
        ended.set()
        renewal.join()
        with catalog.write_own_rows() as w:
            leases.give_back(w, name, name)


@contextmanager
def saying_where_it_is_full() -> Iterator[None]:
    """Turn StorageFull, whose text is about uploads, into an error that says what to do here."""
    try:
        yield
    except StorageFull as error:
        detail = error.detail.partition(". ")[0]
        raise StateroomError(f"{detail}; free some room, and run it again: it goes on", code=error.code) from error
