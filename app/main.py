"""The composition root: it makes the parts of a server, and owns them."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

from fastapi import FastAPI

from .access.grants import Access
from .api import application
from .api.admission import Admission
from .api.metrics import Metrics
from .api.middleware.proxies import Proxies
from .api.middleware.sites import Sites
from .api.services import THREADS, Probes, Services, Streams
from .api.threads import FairThreads
from .catalog import Catalog
from .concurrency.fair_pool import FairPool
from .concurrency.memory_budget import MemoryBudget
from .concurrency.one_flight import OneFlight
from .deliver.cast import import_in_background
from .deliver.service import Deliver
from .ingest.service import Ingest
from .inside.scan import Scanner
from .inside.service import Inside
from .maintenance import room_of, store_of, sweeper_of
from .notify.refusals import Refusals
from .notify.watch import EventWatch
from .notify.webhooks import WebhookSender
from .retention import Retention
from .settings import Settings
from .store import Spool
from .store.keys import new_name
from .upkeep.periodic import PeriodicSweeps
from .values.tracing import Tracer
from .version import server_version

SHORT_CALLS = 16
"""Threads, for one owner, of the short calls that an upload waits for: its row, its file, its fsync."""


@contextmanager
def open_services(settings: Settings, metrics: Metrics) -> Iterator[Services]:
    """Open all parts of a server, on a catalog that is migrated already, and close them in the reverse order."""
    with ExitStack() as stack:
        catalog = Catalog(settings.catalog_url, durable=settings.durable, on_recorded=metrics.count_events)
        stack.callback(catalog.close)
        room = room_of(settings)
        store = store_of(settings, room)
        stack.callback(store.close)
        spool = Spool(settings.spool_folder, room)
        stack.callback(spool.close)
        retention = Retention(catalog, store, settings.trash)
        ingest = Ingest(catalog, store, spool, retention)
        stack.callback(ingest.close)
        deliver = Deliver(catalog, store, presign=settings.presign)
        stack.callback(deliver.close)
        if settings.preload_torch and (importing := import_in_background()) is not None:
            stack.callback(importing.join)
        inside = Inside(catalog, deliver)
        scanner = Scanner(catalog, inside, new_name())
        stack.callback(scanner.close)
        if settings.sweep_interval:
            sweeps = PeriodicSweeps(
                sweeper_of(settings, catalog, store, retention, room),
                room,
                settings.sweep_interval,
                lambda swept: metrics.swept.inc(max(0, swept.freed_bytes)),
            )
            stack.callback(sweeps.close)
        webhooks = WebhookSender(
            catalog,
            new_name(),
            private=settings.webhook_private,
            on_tried=lambda outcome: metrics.webhooks.labels(outcome).inc(),
        )
        stack.callback(webhooks.close)
        token = settings.server_token.get_secret_value() if settings.server_token else None
        access = Access(catalog, token)
        stack.callback(access.close)
        admission = Admission(settings.max_uploads, settings.max_upload_bytes)
        streams = Streams(metrics.streams, MemoryBudget(settings.memory))
        asks, plans, long_plans, commits = (
            FairThreads(count, metrics.running.labels(kind), metrics.waiting.labels(kind))
            for kind, count in THREADS.items()
        )
        watch, refusals = EventWatch(catalog), Refusals(catalog)
        stack.callback(watch.close)
        stack.callback(refusals.close)
        yield Services(
            catalog=catalog,
            store=store,
            ingest=ingest,
            deliver=deliver,
            inside=inside,
            metrics=metrics,
            streams=streams,
            access=access,
            admission=admission,
            room=room,
            probes=Probes(catalog, store, room),
            watch=watch,
            refusals=refusals,
            found=OneFlight(),
            webhook_private=settings.webhook_private,
            trash=settings.trash,
            retention=retention,
            asks=asks,
            plans=plans,
            long_plans=long_plans,
            commits=commits,
        )


def sites_of(settings: Settings) -> Sites:
    """Return the server's sites. Beyond loopback, its host names include the machine's name and the listening host."""
    if not settings.open_to_others:
        return Sites(settings.allowed_hosts, settings.allowed_origins)
    own = {settings.host.lower(), socket.gethostname().lower()}
    return Sites(settings.allowed_hosts | own, settings.allowed_origins, any_address=True)


def create_app(settings: Settings, metrics: Metrics | None = None, tracer: Tracer | None = None) -> FastAPI:
    """Build the application on a database that is migrated already; its lifespan owns the opened parts.

    ``metrics`` are of one worker among others; without them it counts for itself.
    """
    metrics = metrics or Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(FairPool(SHORT_CALLS, "call"))
        with open_services(settings, metrics) as services:
            app.state.services = services
            yield

    proxies = Proxies(settings.trusted_proxies)
    return application.build(server_version(), metrics, lifespan, sites_of(settings), proxies, tracer)


def end_waits(app: FastAPI) -> None:
    """End the requests that only wait for events: the server is about to stop."""
    services: Services = app.state.services
    services.watch.stop()
