"""The services that handlers use, made by the composition root and injected by one dependency."""

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial, wraps
from threading import Lock
from typing import Annotated, Any, ParamSpec, TypeVar

from anyio import from_thread
from fastapi import Depends, Request
from prometheus_client import Gauge

from ..access.grants import Access
from ..catalog import Catalog
from ..catalog.checkpoints import resolve
from ..catalog.events import newest
from ..catalog.idempotency import find
from ..concurrency.cancellation import TakesLong, current
from ..concurrency.clean_up import clean_up
from ..concurrency.memory_budget import MemoryBudget
from ..concurrency.one_flight import OneFlight
from ..concurrency.probe import Probe
from ..deliver.service import Deliver
from ..ingest.receive import SpooledUpload
from ..ingest.service import Ingest
from ..inside.service import Inside
from ..notify.refusals import Refusals
from ..notify.watch import EventWatch
from ..retention import Retention
from ..store import PackStore, Room
from ..store.room import Free
from ..values.checkpoint import Checkpoint, Fields, ModelName
from ..values.tracing import step
from .admission import Admission
from .metrics import Metrics
from .threads import FairThreads, unless_gone

P = ParamSpec("P")
T = TypeVar("T")

THREADS = {"ask": 32, "plan": 8, "long plan": 4, "commit": 8}
"""Threads by kind of call: catalog queries, download plans, plans that make or hash many bytes, and upload commits. A
call that waits for a thread holds no thread of any kind. One caller gets at most half of each kind.
"""


class Streams:
    """The number of downloads that this process is sending, which share its event loop, and the memory budget of its
    transfers.
    """

    def __init__(self, gauge: Gauge, memory: MemoryBudget) -> None:
        self.memory = memory
        self.active = 0
        self._gauge = gauge

    @contextmanager
    def joined(self) -> Iterator[None]:
        self.active += 1
        self._gauge.inc()
        try:
            yield
        finally:
            self.active -= 1
            self._gauge.dec()


PING_SECONDS = 2.5
"""Seconds that a part of the server has to answer a ping. Probes of balancers and containers wait 3 s or longer."""


class Probes:
    """The pings of the parts that a server needs, for readiness. Create it on the event loop."""

    def __init__(self, catalog: Catalog, store: PackStore, room: Room) -> None:
        def disks() -> tuple[str | None, list[Free], list[Free]]:
            return room.refusal(), room.free(), store.room.free()

        self.catalog = Probe("catalog", catalog.ping_writable, PING_SECONDS)
        self.store = Probe("store", store.ping, PING_SECONDS)
        self.disks = Probe("disks", disks, PING_SECONDS)


@dataclass(frozen=True, slots=True)
class FoundNow:
    """A checkpoint, its JSON, and the newest event at the moment when it was found."""

    checkpoint: Checkpoint
    json: bytes
    at: int


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a server. Create it on the event loop. Deleted checkpoints stay in the trash for ``trash``."""

    catalog: Catalog
    store: PackStore
    ingest: Ingest
    deliver: Deliver
    inside: Inside
    metrics: Metrics
    streams: Streams
    access: Access
    admission: Admission
    room: Room
    probes: Probes
    watch: EventWatch
    refusals: Refusals
    found: OneFlight[FoundNow]
    webhook_private: bool
    trash: timedelta
    retention: Retention
    asks: FairThreads
    plans: FairThreads
    long_plans: FairThreads
    commits: FairThreads

    async def find(self, model: ModelName, ref: str, run: str | None) -> Checkpoint:
        """Resolve ``ref``. Raises NotFound."""

        def resolved() -> Checkpoint:
            with self.catalog.read() as session:
                return resolve(session, model, ref, run)

        return await self.asks.run(resolved)

    async def find_now(
        self,
        model: ModelName,
        ref: str,
        run: str | None,
        to_json: Callable[[Checkpoint], bytes],
        news: int | None = None,
    ) -> FoundNow:
        """Resolve ``ref``, and write the checkpoint as JSON. All who ask because of the same ``news``, an event, share
        one query and one JSON. Raises NotFound.
        """

        def resolved() -> FoundNow:
            with self.catalog.read() as session:
                checkpoint, at = resolve(session, model, ref, run), newest(session)
            return FoundNow(checkpoint, to_json(checkpoint), at)

        async def find() -> FoundNow:
            return await self.asks.run(resolved)

        return await (find() if news is None else self.found.run((model, ref, run, news), find))

    async def plan(self, request: Request, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a ``call`` that reads manifests, plans, or makes a long answer, in a thread.

        A call that raises TakesLong runs again among the long ones. Raises Cancelled when the client disconnects first.
        """
        return await unless_gone(request, self._planned(partial(call, *args, **kwargs)))

    async def _planned(self, call: Callable[[], T]) -> T:
        work = current()
        work.may_take_long = False
        try:
            with step("plan"):
                return await self.plans.run(call)
        except TakesLong:
            work.may_take_long = True
            with step("plan"):
                return await self.long_plans.run(call)

    async def uploaded_as(self, model: ModelName, key: str) -> Checkpoint | None:
        """Find the checkpoint that was stored under this idempotency key."""

        def found() -> Checkpoint | None:
            with self.catalog.read() as session:
                return find(session, model, key)

        return await self.asks.run(found)

    async def commit(
        self,
        request: Request,
        upload: SpooledUpload,
        model: ModelName,
        fields: Fields,
        judge: Callable[[], Coroutine[Any, Any, None]],
    ) -> Checkpoint:
        """Run ``Ingest.commit`` as ``finish`` does."""
        return await self.finish(request, upload, partial(self.ingest.commit, upload, model, fields), judge)

    async def finish(
        self,
        request: Request,
        upload: SpooledUpload,
        call: Callable[[], T],
        judge: Callable[[], Coroutine[Any, Any, None]],
    ) -> T:
        """Run ``call``, which takes over the upload, in a thread, unless ``judge`` raises first. Discard the
        upload if the call never begins: no thread comes free, the request is cancelled, or the client disconnects.
        """
        taken = Lock()  # by the call or by the discard, whichever comes first

        def finished() -> tuple[T] | None:
            if not taken.acquire(blocking=False):
                return None
            try:
                from_thread.run(judge)
            except BaseException:
                self.ingest.discard(upload)
                raise
            return (call(),)

        try:
            result = await unless_gone(request, self.commits.run(finished))
        except BaseException:
            if taken.acquire(blocking=False):
                await clean_up(self.ingest.discard, upload)
            raise
        assert result is not None  # noqa: S101 - only a discard takes the upload from its call, and it raises
        return result[0]


async def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


def in_turn(handler: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """Run a blocking handler that takes ``services`` in a thread, when its caller's turn comes."""

    @wraps(handler)
    async def waiting(*args: P.args, **kwargs: P.kwargs) -> T:
        services = kwargs["services"]
        assert isinstance(services, Services)  # noqa: S101 - FastAPI passes arguments by name
        return await services.asks.run(partial(handler, *args, **kwargs))

    return waiting
