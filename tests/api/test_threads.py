"""What may take long has threads of its own, and waiting for them holds up nobody else."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI

from app.api.services import Services
from app.ingest import Chunks, Fields, SpooledUpload
from app.main import create_app, migrate
from app.settings import Settings
from app.values.checkpoint import ModelName
from tests.api.conftest import general

HERE = "/v1/models/a/b/checkpoints"
PATIENCE = 60  # a request that waits for what never comes should fail, not hang
MANY = 45  # more requests than the pool that all others share has threads


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    settings = Settings(data_dir=tmp_path, durable=False)
    migrate(settings)
    return create_app(settings)


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


async def nobody_objects() -> None:
    pass


class AllTaken:
    """While entered, all of a limiter's threads are somebody else's."""

    def __init__(self, limiter: CapacityLimiter) -> None:
        self._limiter = limiter
        self._borrowers = [object() for _ in range(int(limiter.total_tokens))]

    async def __aenter__(self) -> None:
        for borrower in self._borrowers:
            await self._limiter.acquire_on_behalf_of(borrower)

    async def __aexit__(self, *_: object) -> None:
        for borrower in self._borrowers:
            self._limiter.release_on_behalf_of(borrower)


def upload(http: httpx.AsyncClient) -> Awaitable[httpx.Response]:
    return http.post(HERE, content=general())


def warmstart(http: httpx.AsyncClient) -> Awaitable[httpx.Response]:
    return http.post(f"{HERE}/1/warmstart", json={"target": {}})


def getting(route: str) -> Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]:
    return lambda http: http.get(f"{HERE}/1/{route}")


@pytest.mark.parametrize(
    ("ask", "threads"),
    [
        (upload, "commit_threads"),
        (warmstart, "plan_threads"),
        *((getting(route), "plan_threads") for route in ("state_dict", "state_dict/index", "file", "tensors")),
        (getting("original"), "plan_threads"),
        (getting(f"state_dict?plan={'0' * 64}"), "plan_threads"),
    ],
)
def test_requests_that_wait_for_a_plan_or_a_commit_hold_up_no_other(
    app: FastAPI, ask: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]], threads: str
) -> None:
    async def main() -> None:
        async with served(app) as (http, services):
            assert (await upload(http)).status_code == 201
            limiter = getattr(services, threads)
            async with AllTaken(limiter):
                waiting = [asyncio.ensure_future(ask(http)) for _ in range(MANY)]
                await until(lambda: limiter.statistics().tasks_waiting == MANY)
                assert to_thread.current_default_thread_limiter().borrowed_tokens == 0
                for path in ("/readyz", HERE, f"{HERE}/1", "/v1/models"):
                    assert (await asyncio.wait_for(http.get(path), PATIENCE)).status_code == 200
                assert not any(task.done() for task in waiting)
            assert {answer.status_code for answer in await asyncio.gather(*waiting)} <= {200, 201, 410}

    asyncio.run(main())


async def _arrived(services: Services) -> SpooledUpload:
    async def body() -> AsyncIterator[bytes]:
        yield general()

    return await services.ingest.receive(Chunks(body()), None)


def _is_empty(data_dir: Path) -> bool:
    return not any((data_dir / "spool").iterdir())


def test_an_upload_that_is_cancelled_before_its_commit_begins_is_discarded(app: FastAPI, tmp_path: Path) -> None:
    async def main() -> None:
        async with served(app) as (http, services):
            arrived = await _arrived(services)
            async with AllTaken(services.commit_threads):
                commit = asyncio.create_task(services.commit(arrived, ModelName("a", "b"), Fields(), nobody_objects))
                await until(lambda: services.commit_threads.statistics().tasks_waiting == 1)
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
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        async with served(app) as (_, services):
            arrived = await _arrived(services)
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", no_more)
                with pytest.raises(RuntimeError, match="new thread"):
                    await services.commit(arrived, ModelName("a", "b"), Fields(), nobody_objects)
            await until(lambda: _is_empty(tmp_path))

    asyncio.run(main())
