"""The first byte of a download from a store that is far away waits for two rounds of requests, whatever is asked for.

Rounds are counted, not timed: the store answers two requests for objects and holds all others back. A first byte that
comes nevertheless waited for no third one.
"""

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from benchmarks.cloud_store import Handler
from tests.functional.on_s3 import noise
from tests.support.server import Server, start_server
from tests.support.waiting import LONG_ENOUGH

LARGE = {"model_state_dict": {f"weight{i}": noise(7) for i in range(4)}, "epoch": 3}


class Far(ThreadingHTTPServer):
    """A store that answers as many requests for objects as it may, and holds back the others."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        handler = type("Held", (Held,), {"folder": folder})
        super().__init__(("127.0.0.1", 0), handler)
        self.may_answer = threading.Semaphore(1_000_000)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "STATEROOM_STORE_ENDPOINT": f"http://127.0.0.1:{self.server_port}",
        }

    @contextmanager
    def answering(self, requests: int) -> Iterator[None]:
        """Answer that many requests for objects until the block ends, and then all."""
        self.may_answer = threading.Semaphore(requests)
        try:
            yield
        finally:
            self.may_answer.release(1_000_000)


class Held(Handler):
    server: Far

    def do_GET(self) -> None:
        if "list-type" not in self.path:
            self.server.may_answer.acquire()
        super().do_GET()


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    (tmp_path / "cloud").mkdir()
    with Far(tmp_path / "cloud") as far, ThreadPoolExecutor(1) as threads:
        threads.submit(far.serve_forever)
        try:
            yield far
        finally:
            far.shutdown()


@pytest.fixture
def server(far: Far, tmp_path: Path) -> Iterator[Server]:
    server = start_server(tmp_path / "data", "--store-url", "s3://cloud/packs", env=far.environment)
    try:
        yield server
    finally:
        server.kill()


@pytest.mark.parametrize("what", ["original", "file?device=cpu", "state_dict?component=model_state_dict"])
def test_a_first_byte_waits_for_two_rounds_of_requests(far: Far, server: Server, what: str) -> None:
    written = io.BytesIO()
    torch.save(LARGE, written)
    with server.client() as client:
        client.post("/v1/models/ns/m/checkpoints", content=written.getvalue()).raise_for_status()
    server.kill()
    server.restart()  # nothing is cached
    with (
        server.client(timeout=LONG_ENOUGH) as client,
        far.answering(2),
        client.stream("GET", f"/v1/models/ns/m/checkpoints/1/{what}") as answer,
    ):
        answer.raise_for_status()
        pieces = answer.iter_raw()
        data = next(pieces)
        far.may_answer.release(1_000_000)
        data += b"".join(pieces)
    if what == "original":
        assert data == written.getvalue()
    loaded = torch.load(io.BytesIO(data))
    tensors = loaded.get("model_state_dict", loaded)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in LARGE["model_state_dict"].items())
