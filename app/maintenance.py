"""Work on a server's data that needs no running server: migrating, preparing a start, sweeping, checking."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from .catalog import Catalog, leases, packs
from .catalog.unused import Moment
from .data_dir import CATALOG, claim, held
from .errors import PackMissing, StateroomError
from .retention import Retention
from .settings import Settings
from .store import LocalPackStore, PackStore, Room, Spool
from .store.keys import new_name
from .store.spool import remove_old_partials
from .upkeep.backup import Made, Progress, make_backup
from .upkeep.backup_folder import BackupFolder
from .upkeep.fsck import Fsck
from .upkeep.incoming import find_orphans
from .upkeep.leftovers import recover
from .upkeep.migrate_store import Copied, copy_packs
from .upkeep.restore import Restored
from .upkeep.restore import restore as restore_backup
from .upkeep.sweep import Sweeper, Swept
from .upkeep.sweep_lease import SweepLease

_log = logging.getLogger("stateroom.start")


def store_of(settings: Settings, room: Room | None = None, *, make: bool = True) -> PackStore:
    """Open the store of packs. Without ``make``, a missing folder is a StoreError."""
    if (folder := settings.store_folder) is not None:
        return LocalPackStore(folder, durable=settings.durable, make=make, room=room)
    from .store.remote import ObjectStoreAt  # noqa: PLC0415 - only for who uses an object store

    return ObjectStoreAt(settings.store_url or "", settings.store_endpoint, settings.store_path_style).open()


def room_of(settings: Settings) -> Room:
    """Return the room on the existing folders' devices; the database's is the first, the store's the last."""
    reserve = settings.reserve_file
    folders = (reserve.parent, settings.spool_folder, settings.store_folder)
    there = [folder for folder in folders if folder is not None and folder.is_dir()]
    return Room(*there, reserve=reserve if reserve.parent.is_dir() else None, size=settings.reserve)


def sweeper_of(settings: Settings, catalog: Catalog, store: PackStore, retention: Retention, room: Room) -> Sweeper:
    for_copies = None if settings.store_folder is None else room
    return Sweeper(catalog, store, settings.spool_folder, retention, settings.grace, for_copies, settings.events_keep)


def migrate(settings: Settings) -> None:
    """Create or upgrade the catalog's tables; safe to run again."""
    if settings.database_url is None:
        claim(settings.data_dir, durable=settings.durable)
    with closing(Catalog(settings.catalog_url)) as catalog:
        room_of(settings).freeing(catalog.migrate)


def prepare(settings: Settings) -> None:
    """Prepare a start, once before any worker: migrate a database of the server's own, and remove leftovers of a crash.

    Only for a process that holds the data dir. Raises StateroomError if the database holds no catalog of this version,
    and if database or store cannot be written.
    """
    with closing(Spool(settings.spool_folder)) as spool:
        spool.clear()  # before anything is written: the spool may fill the disk
    remove_old_partials(settings.data_dir / "partial")
    room = room_of(settings)
    room.freeing(lambda: _prepare(settings))
    room.make_reserve(anew=True)


def _prepare(settings: Settings) -> None:
    with ExitStack() as stack:
        catalog = stack.enter_context(closing(Catalog(settings.catalog_url, durable=settings.durable)))
        if settings.catalog_file is not None:
            catalog.migrate()
        catalog.check()
        _try_to_write(catalog)
        store = stack.enter_context(closing(store_of(settings)))
        store.ping()
        _warn_of_another_store(catalog, store)
        moment = Moment.at(datetime.now(UTC), settings.grace)
        find_orphans(catalog, settings.spool_folder, moment, remove=True)
        recover(catalog, store, moment, alone=settings.alone)


def _try_to_write(catalog: Catalog) -> None:
    """Raise StoreError if the database cannot be written, so that the start says it, and not the first upload."""
    name = f"start-{new_name()}"
    with catalog.write_own_rows() as w:
        leases.take(w, name, name, 0)
        leases.give_back(w, name)


def _warn_of_another_store(catalog: Catalog, store: PackStore) -> None:
    """Log a warning if the catalog's newest pack is not in the store: a wrong URL, or packs that are lost. The server
    starts all the same, because uploads replace what is lost.
    """
    with catalog.read() as s:
        name = packs.newest(s)
    if name is None:
        return
    try:
        store.size(name)
    except PackMissing:
        with catalog.read() as s:
            if packs.newest(s) != name:  # another server has swept it meanwhile, or has stored one
                return
        _log.warning(
            "the store does not hold the catalog's newest pack, %s: check --store-url; if it is right, packs are lost, "
            "and stateroom-server fsck names the checkpoints that need them",
            name,
        )


ASKED_EVERY = 0.2
"""Seconds between two attempts to sweep while another sweep runs."""


def sweep(settings: Settings, *, dry_run: bool, empty_trash: bool, on_wait: Callable[[], None]) -> Swept:
    """Sweep once, beside any running servers. ``on_wait`` is called once if another sweep has to end first.

    Raises StateroomError.
    """
    with _what_is_there(settings) as (catalog, store):
        room = room_of(settings)
        sweeper = sweeper_of(settings, catalog, store, Retention(catalog, store, settings.trash), room)
        if dry_run:
            return sweeper.dry_run(empty_trash=empty_trash)
        lease = SweepLease(catalog, lambda: False)

        def work() -> Swept:
            if not lease.begin():
                on_wait()
                while not lease.begin():
                    time.sleep(ASKED_EVERY)
            try:
                return sweeper.sweep(lease.go_on, empty_trash=empty_trash)
            finally:
                lease.end()

        return room.freeing(work)


def migrate_store(settings: Settings, source_url: str, target_url: str) -> Iterator[Copied]:
    """Copy the packs of the store at one URL to that at another, beside any running servers. Raises StateroomError."""
    with ExitStack() as stack:
        catalog = stack.enter_context(closing(Catalog(settings.catalog_url, durable=settings.durable)))
        catalog.check()
        source, target = (
            stack.enter_context(closing(store_of(settings.model_copy(update={"store_url": url}), make=make)))
            for url, make in ((source_url, False), (target_url, True))
        )
        target.ping()
        yield from copy_packs(catalog, source, target)


def backup(settings: Settings, folder: Path, keep: int, progress: Progress) -> Made:
    """Back up catalog and packs into a folder, beside any running servers. Raises StateroomError."""
    _check_apart(settings, folder)
    with _what_is_there(settings) as (catalog, store):
        return make_backup(catalog, store, BackupFolder(folder, durable=settings.durable), keep, progress)


def restore(settings: Settings, folder: Path, backup_id: str | None, progress: Progress) -> Restored:
    """Restore a backup into an empty database and an empty store. No server may use the data dir meanwhile.

    Raises StateroomError.
    """
    _check_apart(settings, folder)
    with held(settings.data_dir, durable=settings.durable), ExitStack() as stack:
        catalog = stack.enter_context(closing(Catalog(settings.catalog_url, durable=settings.durable)))
        store = stack.enter_context(closing(store_of(settings)))
        store.ping()
        spare = settings.data_dir / f"{CATALOG}-restoring"
        return restore_backup(BackupFolder(folder, durable=False), backup_id, catalog, store, spare, progress)


def _check_apart(settings: Settings, folder: Path) -> None:
    """Raise StateroomError if the store is the folder of backups, or lies in it."""
    store = settings.store_folder
    if store is not None and store.resolve().is_relative_to(folder.resolve()):
        raise StateroomError(f"the store {store} is in the folder of backups, {folder}; name another store")


@contextmanager
def fsck(settings: Settings, *, read_data: bool, mark: bool) -> Iterator[Fsck]:
    """Open a check, beside any running servers. Raises StateroomError if there is nothing to check."""
    with _what_is_there(settings) as (catalog, store):
        yield Fsck(catalog, store, read_data or mark, mark)


@contextmanager
def _what_is_there(settings: Settings) -> Iterator[tuple[Catalog, PackStore]]:
    """Open a server's existing catalog and store; make neither."""
    with closing(Catalog(settings.catalog_url, durable=settings.durable)) as catalog:
        catalog.check()
        with closing(store_of(settings, make=False)) as store:
            yield catalog, store
