"""The composition root: which parts there are, and who owns them. And the commands that need no server."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

from fastapi import FastAPI

from .api import application
from .api.access import Access
from .api.intake import Intake
from .api.metrics import Metrics
from .api.services import THREADS, Services, Streams
from .api.sites import Sites
from .api.threads import FairThreads
from .catalog import Catalog
from .catalog.unused import Moment
from .data_dir import claim
from .deliver.service import Deliver
from .fair_pool import FairPool
from .ingest import Ingest
from .memory_budget import MemoryBudget
from .settings import Settings
from .store import Holder, LocalPackStore, Partials, Room, Spool
from .store.files import make_folder
from .store.holder import holder_id, known_holder_id
from .store.keys import new_name
from .upkeep.fsck import Fsck
from .upkeep.incoming import Incoming, look_for_left
from .upkeep.leftovers import start_afresh
from .upkeep.periodic import PeriodicSweeps
from .upkeep.shift import Shift
from .upkeep.sweep import Swept, foresee
from .upkeep.sweep import sweep as sweep_once

SHORT_CALLS = 16
"""Threads, for one owner, of what an upload has to wait for: its row, its file, its fsync."""


def server_version() -> str:
    try:
        return installed_version("stateroom-server")
    except PackageNotFoundError:  # run from the repository
        return "0.0.0"


def incoming_of(settings: Settings) -> Incoming:
    return Incoming(settings.spool_folder, settings.partial_folder, known_holder_id(settings.data_dir))


def room_of(settings: Settings) -> Room:
    """On the devices that are there; the database's is the first, and the store's the last."""
    reserve = settings.reserve_file
    folders = (reserve.parent, settings.spool_folder, settings.partial_folder, settings.store_folder)
    there = [folder for folder in folders if folder.is_dir()]
    return Room(*there, reserve=reserve if reserve.parent.is_dir() else None, size=settings.reserve)


@contextmanager
def open_services(settings: Settings, metrics: Metrics, run: str | None = None) -> Iterator[Services]:
    """All parts of a server, on a catalog that is migrated already; closed in the reverse order.

    ``run`` names this run of the server, and is that of all its workers.
    """
    with ExitStack() as stack:
        catalog = Catalog(settings.catalog_url, durable=settings.durable)
        stack.callback(catalog.close)
        room = room_of(settings)
        store = LocalPackStore(settings.store_folder, durable=settings.durable, room=room)
        spool = Spool(settings.spool_folder, room)
        stack.callback(spool.close)
        holder = Holder(holder_id(settings.data_dir, durable=settings.durable), run or new_name())
        partials = Partials(settings.partial_folder, holder, durable=settings.durable, room=room)
        ingest = Ingest(catalog, store, spool, partials)
        stack.callback(ingest.close)
        deliver = Deliver(catalog, store)
        stack.callback(deliver.close)
        if settings.sweep_interval:
            sweeps = PeriodicSweeps(
                catalog,
                store,
                incoming_of(settings),
                room,
                settings.grace,
                settings.sweep_interval,
                lambda swept: metrics.swept.inc(max(0, swept.freed_bytes)),
            )
            stack.callback(sweeps.close)
        token = settings.server_token.get_secret_value() if settings.server_token else None
        access = Access(catalog, token)
        intake = Intake(settings.max_uploads, settings.max_upload_bytes)
        streams = Streams(metrics.streams, MemoryBudget(settings.memory))
        asks, plans, long_plans, commits = (
            FairThreads(count, metrics.running.labels(kind), metrics.waiting.labels(kind))
            for kind, count in THREADS.items()
        )
        yield Services(
            catalog, store, ingest, deliver, metrics, streams, access, intake, room, asks, plans, long_plans, commits
        )


def sites_of(settings: Settings) -> Sites:
    """Beyond loopback, the machine's own name and the one it listens on are names of the server too."""
    if not settings.open_to_others:
        return Sites(settings.allowed_hosts, settings.allowed_origins)
    own = {settings.host.lower(), socket.gethostname().lower()}
    return Sites(settings.allowed_hosts | own, settings.allowed_origins, any_address=True)


def create_app(settings: Settings, metrics: Metrics | None = None, run: str | None = None) -> FastAPI:
    """The application on a database that is migrated already; its lifespan owns what it opens.

    ``metrics`` are those of a worker among others, which have a ``run`` in common; without them it counts for itself.
    """
    metrics = metrics or Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(FairPool(SHORT_CALLS, "call"))
        with open_services(settings, metrics, run) as services:
            app.state.services = services
            yield

    return application.build(server_version(), metrics, lifespan, sites_of(settings))


def migrate(settings: Settings) -> None:
    """Create or upgrade the catalog's tables; safe to run again."""
    if settings.database_url is None:
        claim(settings.data_dir, durable=settings.durable)
    with closing(Catalog(settings.catalog_url)) as catalog:
        room_of(settings).freeing(catalog.migrate)


def prepare(settings: Settings) -> None:
    """What a server does once, before any worker: migrate a database of its own, and remove what a crash left.

    Only for a process that holds the data dir. Raises StateroomError where the database holds no catalog.
    """
    with closing(Spool(settings.spool_folder)) as spool:
        spool.clear()  # before anything is written: the disk may be full of it
    make_folder(settings.partial_folder, durable=settings.durable)
    room = room_of(settings)
    room.freeing(lambda: _prepare(settings))
    room.make_reserve(anew=True)


def _prepare(settings: Settings) -> None:
    with ExitStack() as stack:
        catalog = stack.enter_context(closing(Catalog(settings.catalog_url, durable=settings.durable)))
        if settings.on_sqlite:
            catalog.migrate()
        catalog.ping()
        store = LocalPackStore(settings.store_folder, durable=settings.durable)
        moment = Moment.at(datetime.now(UTC), settings.grace)
        start_afresh(catalog, store, moment, alone=settings.alone)
        holder_id(settings.data_dir, durable=settings.durable)  # made once, before there are workers
        look_for_left(catalog, incoming_of(settings), moment, remove=True)


ASKED_EVERY = 0.2
"""Seconds between two attempts to sweep while another does."""


def sweep(settings: Settings, *, dry_run: bool, on_wait: Callable[[], None]) -> Swept:
    """One sweep by hand, beside whatever servers run. ``on_wait`` is called once if another sweep has to end first.

    Raises StateroomError.
    """
    with _what_is_there(settings) as (catalog, store):
        if dry_run:
            return foresee(catalog, store, incoming_of(settings), settings.grace)
        room, shift = room_of(settings), Shift(catalog, lambda: False)

        def work() -> Swept:
            if not shift.begin():
                on_wait()
                while not shift.begin():
                    time.sleep(ASKED_EVERY)
            try:
                return sweep_once(catalog, store, incoming_of(settings), settings.grace, shift.go_on, room)
            finally:
                shift.end()

        return room.freeing(work)


@contextmanager
def fsck(settings: Settings, *, read_data: bool, mark: bool) -> Iterator[Fsck]:
    """A check that may be run, beside whatever servers run. Raises StateroomError where there is nothing to check."""
    with _what_is_there(settings) as (catalog, store):
        yield Fsck(catalog, store, read_data or mark, mark)


@contextmanager
def _what_is_there(settings: Settings) -> Iterator[tuple[Catalog, LocalPackStore]]:
    """Catalog and store of a server, neither of them made."""
    with closing(Catalog(settings.catalog_url, durable=settings.durable)) as catalog:
        catalog.ping()
        yield catalog, LocalPackStore(settings.store_folder, durable=settings.durable, make=False)
