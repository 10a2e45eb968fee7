"""What a handler works with: the parts that the composition root made, reached by one dependency."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Annotated, Any

from anyio import CapacityLimiter, from_thread, to_thread
from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from prometheus_client import Gauge

from ..catalog import Catalog
from ..catalog.checkpoints import resolve
from ..catalog.idempotency import find
from ..deliver.service import Deliver
from ..ingest import Fields, Ingest, SpooledUpload
from ..memory_budget import MemoryBudget
from ..store import PackStore, Room
from ..values.checkpoint import Checkpoint, ModelName
from .access import Access
from .intake import Intake
from .metrics import Metrics

PLAN_THREADS = 8
COMMIT_THREADS = 4
"""What may take seconds has threads of its own. Whoever waits for one of them holds none, so that what is asked of
the catalog alone, and the health checks, find theirs free.
"""


class Streams:
    """How many downloads are being sent by this process; they share the loop, so they share its patience. And the
    memory of what comes and goes.
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


@dataclass(frozen=True, slots=True)
class Services:
    """Made on the event loop."""

    catalog: Catalog
    store: PackStore
    ingest: Ingest
    deliver: Deliver
    metrics: Metrics
    streams: Streams
    access: Access
    intake: Intake
    room: Room
    plan_threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(PLAN_THREADS))
    commit_threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(COMMIT_THREADS))

    async def from_inside(
        self, model: ModelName, ref: str, run: str | None, answer: Callable[[Checkpoint], Response]
    ) -> Response:
        """What ``answer`` makes of the checkpoint that ``ref`` names: anything that needs its manifest or a plan.

        It is called in a thread, and may block.
        """
        checkpoint = await self.find(model, ref, run)
        return await to_thread.run_sync(answer, checkpoint, limiter=self.plan_threads)

    async def find(self, model: ModelName, ref: str, run: str | None) -> Checkpoint:
        """Raises NotFound."""

        def resolved() -> Checkpoint:
            with self.catalog.read() as session:
                return resolve(session, model, ref, run)

        return await run_in_threadpool(resolved)

    async def uploaded_as(self, model: ModelName, key: str) -> Checkpoint | None:
        """The checkpoint that was stored under this idempotency key."""

        def found() -> Checkpoint | None:
            with self.catalog.read() as session:
                return find(session, model, key)

        return await run_in_threadpool(found)

    async def commit(
        self, upload: SpooledUpload, model: ModelName, fields: Fields, judge: Callable[[], Coroutine[Any, Any, None]]
    ) -> Checkpoint:
        """``Ingest.commit`` in a thread, unless ``judge`` raises first. An upload whose commit never begins, for
        want of a thread or because the request is cancelled, is discarded.
        """
        taken = Lock()  # by the commit or by the discard, whichever comes first

        def commit() -> Checkpoint | None:
            if not taken.acquire(blocking=False):
                return None
            try:
                from_thread.run(judge)
            except BaseException:
                self.ingest.discard(upload)
                raise
            return self.ingest.commit(upload, model, fields)

        try:
            checkpoint = await to_thread.run_sync(commit, limiter=self.commit_threads)
        except BaseException:
            if taken.acquire(blocking=False):
                # Submitted at once and shielded: a cancelled task is not let wait for it.
                await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self.ingest.discard, upload))
            raise
        assert checkpoint is not None  # noqa: S101 - only a discard takes the upload from its commit, and it raises
        return checkpoint


async def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Parts = Annotated[Services, Depends(services_of)]
