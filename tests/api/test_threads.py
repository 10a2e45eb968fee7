"""Slow work has threads of its own, and waiting for one of them blocks no other request."""

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from anyio import to_thread
from fastapi import FastAPI, Request
from prometheus_client import Gauge
from starlette.types import Message

from app.api.services import Services
from app.api.threads import FairThreads, unless_gone
from app.concurrency.cancellation import Work, begin, check
from app.concurrency.clean_up import clean_up
from app.concurrency.fair_pool import FairPool
from app.data_dir import CATALOG
from app.errors import Cancelled, StateroomError
from app.ingest.body import Chunks
from app.ingest.receive import SpooledUpload
from app.main import create_app
from app.settings import Settings
from app.values.checkpoint import Fields, ModelName
from tests.api.conftest import general
from tests.support.measure import long, some
from tests.support.waiting import awaited_soon

HERE = "/v1/models/a/b/checkpoints"
PATIENCE = 60  # a request that waits for what never comes should fail, not hang
MANY = 45  # more requests than the pool that all others share has threads


@pytest.fixture
def app(migrated: Path, tmp_path: Path) -> FastAPI:
    shutil.copy(migrated, tmp_path / CATALOG)
    return create_app(Settings(data_dir=tmp_path, durable=False, max_uploads=2 * MANY))  # half of them for one caller


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
    """``app`` in this process, so that a test can take its threads away."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http,
    ):
        yield http, app.state.services


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not happened():  # noqa: ASYNC110 - a limiter and a folder tell nobody when they change
            await asyncio.sleep(0.005)


def no_more(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def nobody_objects() -> None:
    pass


class AllTaken:
    """While entered, all of these threads are other callers'."""

    def __init__(self, threads: FairThreads) -> None:
        self._places = threads.places

    async def __aenter__(self) -> None:
        self._taken = [await self._places.turn(f"other {i}") for i in range(self._places.capacity)]

    async def __aexit__(self, *_: object) -> None:
        for place in self._taken:
            place.leave()


async def _nothing_more() -> Message:
    return await asyncio.get_running_loop().create_future()


STAYING = Request({"type": "http", "method": "POST", "headers": []}, _nothing_more)
"""From a client that waits for its answer."""


def upload(http: httpx.AsyncClient) -> Awaitable[httpx.Response]:
    return http.post(HERE, content=general())


def warmstart(http: httpx.AsyncClient) -> Awaitable[httpx.Response]:
    return http.post(f"{HERE}/1/warmstart", json={"target": {}})


def getting(route: str) -> Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]:
    return lambda http: http.get(f"{HERE}/1/{route}")


@long
@pytest.mark.parametrize(
    ("ask", "threads"),
    [
        (upload, "commits"),
        (warmstart, "plans"),
        *(
            (getting(route), "plans")
            for route in some(
                (
                    "state_dict",
                    "state_dict/index",
                    "file",
                    "tensors",
                    "tensors/conv.bias",
                    "tensors/conv.bias/index",
                ),
                3,
            )
        ),
        (getting("original"), "plans"),
        (getting(f"state_dict?plan={'0' * 64}"), "plans"),
    ],
)
def test_requests_that_wait_for_a_plan_or_a_commit_hold_up_no_other(
    app: FastAPI, ask: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]], threads: str
) -> None:
    async def main() -> None:
        async with served(app) as (http, services):
            assert (await upload(http)).status_code == 201
            fair: FairThreads = getattr(services, threads)
            async with AllTaken(fair):
                waiting = [asyncio.ensure_future(ask(http)) for _ in range(MANY)]
                await until(lambda: fair.places.waiting == MANY)
                await until(lambda: to_thread.current_default_thread_limiter().borrowed_tokens == 0)
                for path in (HERE, f"{HERE}/1", "/v1/models"):
                    assert (await asyncio.wait_for(http.get(path), PATIENCE)).status_code == 200

                async def is_ready() -> bool:
                    return (await http.get("/readyz")).status_code == 200

                await awaited_soon(is_ready)
                assert not any(task.done() for task in waiting)
            assert {answer.status_code for answer in await asyncio.gather(*waiting)} <= {200, 201, 410}

    asyncio.run(main())


def test_one_caller_whose_questions_take_long_leaves_threads_to_those_of_another(app: FastAPI) -> None:
    async def main() -> None:
        async with served(app) as (http, services):
            assert (await upload(http)).status_code == 201
            begin(Work("greedy"))
            greedy = [asyncio.create_task(services.asks.run(works_until_it_is_given_up)) for _ in range(2 * MANY)]
            await until(lambda: services.asks.places.waiting + services.asks.places.taken == 2 * MANY)
            change = {"tags": {"x": "y"}}
            for answer in (http.get(HERE), http.get(f"{HERE}/1"), http.patch(f"{HERE}/1", json=change)):
                assert (await asyncio.wait_for(answer, PATIENCE)).status_code == 200
            for task in greedy:
                task.cancel()
            await asyncio.wait(greedy)
            await until(lambda: services.asks.places.taken == 0)

    asyncio.run(main())


async def _arrived(services: Services) -> SpooledUpload:
    async def body() -> AsyncIterator[bytes]:
        yield general()

    return await services.ingest.receive(Chunks(body()), None)


class Leaving:
    """What is received from a client that goes away once ``go`` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self) -> Message:
        await self.go.wait()
        return {"type": "http.disconnect"}


def works_until_it_is_given_up() -> None:
    while True:
        check()
        time.sleep(0.001)


def test_a_call_whose_client_goes_away_is_given_up_and_its_thread_is_free_again(app: FastAPI) -> None:
    async def main() -> None:
        async with served(app) as (_, services):
            begin(Work("a"))
            receive, places = Leaving(), services.plans.places
            request = Request({"type": "http", "method": "GET", "headers": []}, receive)
            answer = asyncio.create_task(unless_gone(request, services.plans.run(works_until_it_is_given_up)))
            await until(lambda: places.taken == 1)
            receive.go.set()
            with pytest.raises(Cancelled):
                await answer
            await until(lambda: places.taken == 0)

    asyncio.run(main())


def test_one_caller_that_takes_all_it_can_get_leaves_threads_to_another(app: FastAPI) -> None:
    async def main() -> None:
        async with served(app) as (_, services):
            begin(Work("greedy"))
            greedy = [asyncio.create_task(services.plans.run(works_until_it_is_given_up)) for _ in range(MANY)]
            await until(lambda: services.plans.places.waiting + services.plans.places.taken == MANY)
            begin(Work("other"))
            assert await asyncio.wait_for(services.plans.run(lambda: "done"), PATIENCE) == "done"
            for task in greedy:
                task.cancel()
            await asyncio.wait(greedy)
            await until(lambda: services.plans.places.taken == 0)

    asyncio.run(main())


def _is_empty(data_dir: Path) -> bool:
    return not any((data_dir / "spool").iterdir())


def test_an_upload_that_is_cancelled_before_its_commit_begins_is_discarded(app: FastAPI, tmp_path: Path) -> None:
    async def main() -> None:
        async with served(app) as (http, services):
            arrived = await _arrived(services)
            async with AllTaken(services.commits):
                call = services.commit(STAYING, arrived, ModelName("a", "b"), Fields(), nobody_objects)
                commit = asyncio.create_task(call)
                await until(lambda: services.commits.places.waiting == 1)
                assert not _is_empty(tmp_path)
                commit.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await commit
            assert _is_empty(tmp_path)
            assert (await http.get(HERE)).status_code == 404

    asyncio.run(main())


def test_an_upload_whose_commit_gets_no_thread_is_discarded(
    app: FastAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with served(app) as (_, services):
            arrived = await _arrived(services)
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", no_more)
                with pytest.raises(RuntimeError, match="new thread"):
                    await services.commit(STAYING, arrived, ModelName("a", "b"), Fields(), nobody_objects)
            await until(lambda: _is_empty(tmp_path))

    asyncio.run(main())


def test_what_cleans_up_runs_in_the_event_loops_thread_if_it_gets_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    ran_in: list[threading.Thread] = []

    async def main() -> None:
        with FairPool(1, "call") as pool:
            asyncio.get_running_loop().set_default_executor(pool)
            await clean_up(lambda: ran_in.append(threading.current_thread()))
            assert ran_in.pop() is not threading.current_thread()
        with FairPool(1, "call") as pool, monkeypatch.context() as patch:
            asyncio.get_running_loop().set_default_executor(pool)
            patch.setattr(threading.Thread, "start", no_more)
            await clean_up(lambda: ran_in.append(threading.current_thread()))
            assert ran_in == [threading.current_thread()]

    asyncio.run(main())


def test_a_call_that_fails_leaves_nothing_large_for_the_event_loop_to_free() -> None:
    freed_in: list[str] = []

    class Large:
        def __del__(self) -> None:
            freed_in.append(threading.current_thread().name)

    def fail() -> None:
        large = Large()  # noqa: F841 - it is the local variable that counts
        raise StateroomError("refused")

    async def test() -> None:
        with pytest.raises(StateroomError, match="refused"):
            await FairThreads(2, Gauge("running", "", registry=None), Gauge("waiting", "", registry=None)).run(fail)
        assert len(freed_in) == 1
        assert freed_in != [threading.current_thread().name]

    asyncio.run(test())
