"""Restoring a backup into an empty catalog and an empty store.

The packs come first and the catalog last, in one transaction: until then there is nothing that a server could serve. A
restore that was interrupted goes on when it is run again.
"""

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..catalog import Catalog, audit, copies
from ..catalog.audit import PackRow
from ..catalog.migrate import REVISION, newer
from ..errors import Conflict, StateroomError
from ..store import LocalPackStore, PackStore
from ..store.keys import area_of
from .backup import Progress, saying_where_it_is_full
from .backup_folder import Backup, BackupFolder, file_digest
from .checked_copy import CheckedCopy


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of a restore. ``problems`` are the packs that are damaged or missing, with the reason."""

    backup: Backup
    packs: int
    pack_bytes: int
    problems: dict[str, str]


def restore(
    folder: BackupFolder, backup_id: str | None, catalog: Catalog, store: PackStore, spare: Path, progress: Progress
) -> Restored:
    """Restore a backup, by default the newest. ``spare`` is a path for the catalog of an older version, which has to be
    migrated first.

    Raises StateroomError, also Conflict if the catalog or the store holds anything else.
    """
    with folder.held(), saying_where_it_is_full():
        backup = folder.get(backup_id)
        file = folder.catalog(backup.id)
        if backup.revision > REVISION:
            raise newer()
        if not file.is_file() or file_digest(file) != (backup.catalog_bytes, backup.catalog_blake3):
            raise StateroomError(f"{file} is damaged; restore another backup")
        copies.check_empty(catalog)
        with _migrated(file, backup.revision, spare) as migrated:
            with closing(copies.opened(migrated)) as rows:
                packs = [pack for pack in audit.all_packs(rows) if pack.sealed]
                _check_store(store, packs)
                nbytes = sum(pack.size for pack in packs)
                progress.plan(len(packs), nbytes)
                source = LocalPackStore(folder.root, durable=False, make=False)
                copy = CheckedCopy(rows, source, store, lambda _: False, lambda _: True, progress.read)
                problems = {}
                for copied in copy.run(packs):
                    progress.copied(copied)
                    if copied.problem is not None:
                        problems[copied.pack] = copied.problem
            catalog.migrate()
            copies.load(catalog, migrated, backup.id)
        return Restored(backup, len(packs), nbytes, problems)


@contextmanager
def _migrated(file: Path, revision: str, spare: Path) -> Iterator[Path]:
    """The path of a backup's catalog, or of a migrated copy of it."""
    if revision == REVISION:
        yield file
        return
    _remove(spare)
    try:
        shutil.copy(file, spare)
        with closing(Catalog(f"sqlite:///{spare.resolve()}", durable=False)) as catalog:
            catalog.migrate()
        yield spare
    finally:
        _remove(spare)


def _remove(spare: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        spare.with_name(spare.name + suffix).unlink(missing_ok=True)


def _check_store(store: PackStore, packs: list[PackRow]) -> None:
    """Raise Conflict if the store has packs that are not of the backup: a sweep would never remove them."""
    wanted = {area_of(pack.name) for pack in packs}
    others = next((stored.name for stored in store.walk() if stored.name not in wanted), None)
    if others is not None:
        raise Conflict(f"the store is not empty: it has pack {others}, which the backup has not")
