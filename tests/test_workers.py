"""Workers share a port, are replaced when they die, and drain when the server is told to stop."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path

import pytest
import torch

from app.api.requests.forms import HELD
from app.process.supervisor import LONGEST_DELAY, delay_after
from tests.api.conftest import general, saved
from tests.conftest import StartServer
from tests.support.raw_http import answer_on, connected, get, post, rest_of
from tests.support.scripts import run_script
from tests.support.server import Server
from tests.support.waiting import LONG_ENOUGH, assert_soon, until_ready

CHECKPOINTS = "/v1/models/a/b/checkpoints"
FILE = general(size=32)
UNSYNCED = {"STATEROOM_DURABLE": "off"}
ALONE_OR_NOT = pytest.mark.parametrize("workers", ["1", "2"], ids=["alone", "two workers"])


def workers_of(server: Server) -> set[int]:
    """The processes that it forked. One without workers has none: what it may have started are no forks of itself."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return {int(child) for child in children}


def is_running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def figure(server: Server, name: str) -> float:
    with server.client() as http:
        lines = http.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def upload(server: Server, file: bytes) -> str:
    """The URL of what was uploaded."""
    with server.client() as http:
        answer = http.post(CHECKPOINTS, content=file)
        answer.raise_for_status()
        return answer.headers["Location"]


@contextmanager
def downloading(server: Server, location: str) -> Iterator[HTTPResponse]:
    """The answer to a download of which nothing has been read."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("GET", f"{location}/original")
        with connection.getresponse() as answer:
            yield answer


def test_workers_share_the_port_and_the_figures(fresh_server: StartServer) -> None:
    server = fresh_server("--workers", "2", env=UNSYNCED)
    assert len(workers_of(server)) == 2
    asked = 0

    def all_have_answered() -> bool:
        nonlocal asked
        with server.client() as http:
            assert http.get("/v1/models").status_code == 200
        asked += 1
        return len({line["pid"] for line in server.requests}) == 2

    assert_soon(all_have_answered)
    requests = 'stateroom_request_seconds_count{method="GET",route="/v1/models"'
    assert_soon(lambda: figure(server, requests) == asked)
    location = upload(server, FILE)
    for _ in range(5):
        with server.client() as http:
            assert http.get(f"{location}/original").content == FILE
    assert_soon(lambda: figure(server, "stateroom_sent_bytes_total") >= 5 * len(FILE))


def test_a_worker_that_dies_is_replaced_and_meanwhile_others_answer(fresh_server: StartServer) -> None:
    server = fresh_server("--workers", "2", env=UNSYNCED)
    before = workers_of(server)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    for _ in range(20):
        with server.client() as http:
            until_ready(http)
    assert_soon(lambda: len(workers_of(server) - {victim}) == 2)
    assert len(workers_of(server) & before) == 1
    assert_soon(lambda: f"(pid {victim}) was killed by SIGKILL; restarting it now" in server.log)
    assert upload(server, FILE) == f"{CHECKPOINTS}/1"


def test_a_worker_that_keeps_dying_is_waited_for_longer_and_longer() -> None:
    waits = [delay_after(deaths) for deaths in range(1, 12)]
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_DELAY


def test_workers_end_with_the_parent_however_it_ends(fresh_server: StartServer) -> None:
    server = fresh_server("--workers", "2", env=UNSYNCED)
    workers = workers_of(server)
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait(LONG_ENOUGH)
    assert_soon(lambda: not any(is_running(pid) for pid in workers))


def test_the_same_data_dir_serves_again_at_once_after_a_kill(fresh_server: StartServer) -> None:
    server = fresh_server("--workers", "2", env=UNSYNCED)
    location = upload(server, FILE)
    server.restart()
    with server.client() as http:
        assert http.get(f"{location}/original").content == FILE


def test_workers_that_fail_before_they_are_ready_end_the_server() -> None:
    program = """
from app.process.supervisor import Supervisor
def work(number, ready):
    if number: raise OSError("no disk")
    ready(); import time; time.sleep(600)
Supervisor(2, work, lambda: print("ready"), lambda number: None, lambda: None, patience=10).run()
"""
    ended = run_script(program)
    assert ended.returncode == 1
    assert "OSError: no disk" in ended.stderr
    assert "StateroomError: a worker ended before it was ready; see the log for the reason" in ended.stderr
    assert "ready" not in ended.stdout.split()


@pytest.fixture(scope="module")
def large() -> bytes:
    """A file that no socket's buffers hold."""
    return saved({"w": torch.zeros(8_000_000)})


@ALONE_OR_NOT
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_transfers_that_run_come_to_their_end_and_nothing_new_begins(
    fresh_server: StartServer, large: bytes, workers: str, signum: signal.Signals
) -> None:
    server = fresh_server("--workers", workers, env={**UNSYNCED, "STATEROOM_DRAIN_SECONDS": "600"})
    location = upload(server, large)
    with downloading(server, location) as answer, connected(server) as uploading:
        uploading.sendall(post(CHECKPOINTS, f"Content-Length: {len(FILE)}", body=FILE[:1000]))
        assert_soon(lambda: list((server.data_dir / "spool").iterdir()) != [])
        os.killpg(server.pid, signum)
        assert_soon(lambda: not accepts(server))
        uploading.sendall(FILE[1000:])
        assert answer_on(uploading)[0] == 201
        assert answer.read() == large
    assert server.process.wait(LONG_ENOUGH) == 0
    again = fresh_server("--workers", workers, env=UNSYNCED, data_dir=server.data_dir)
    with again.client() as http:
        assert http.get(f"{CHECKPOINTS}/2/original").content == FILE


def accepts(server: Server) -> bool:
    with suppress(OSError), connected(server):
        return True
    return False


@ALONE_OR_NOT
def test_a_transfer_that_does_not_end_is_cut_when_its_time_is_over(
    fresh_server: StartServer, large: bytes, workers: str
) -> None:
    server = fresh_server("--workers", workers, env={**UNSYNCED, "STATEROOM_DRAIN_SECONDS": "1"})
    with downloading(server, upload(server, large)) as answer:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(LONG_ENOUGH) == 0
        with pytest.raises((HTTPException, OSError)):
            answer.read()


@ALONE_OR_NOT
def test_an_upload_that_does_not_end_is_told_that_the_server_stops_and_leaves_nothing(
    fresh_server: StartServer, workers: str
) -> None:
    server = fresh_server("--workers", workers, env={**UNSYNCED, "STATEROOM_DRAIN_SECONDS": "1"})
    long = [f"Content-Length: {len(FILE)}", "Content-Length: 9000000"]  # through the parser, and past it
    with ExitStack() as stack:
        waiting = [stack.enter_context(connected(server)) for _ in (*long, "form", "idle")]
        *uploading, form, idle = waiting
        for connection, length in zip(uploading, long, strict=True):
            connection.sendall(post(CHECKPOINTS, length, body=FILE[:1000]))
        head = b'--B\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        fields = ("Content-Type: multipart/form-data; boundary=B", "Content-Length: 9000000")
        form.sendall(post(CHECKPOINTS, *fields, body=head + FILE[:1000] + bytes(2 * HELD)))
        idle.sendall(get("/healthz"))
        assert answer_on(idle)[0] == 200
        assert_soon(lambda: len(list((server.data_dir / "spool").iterdir())) == 3)
        server.process.send_signal(signal.SIGTERM)
        assert rest_of(idle) == b""
        for connection in (*uploading, form):
            answer = rest_of(connection).lower()
            assert answer.startswith(b"http/1.1 503 ")
            assert b"shutting-down" in answer
            assert b"retry-after: " in answer
            assert b"connection: close" in answer
        assert server.process.wait(LONG_ENOUGH) == 0
    assert "Traceback" not in server.log
    assert [line["status"] for line in server.requests if line["method"] == "POST"] == [503, 503, 503]
    assert list((server.data_dir / "spool").iterdir()) == []
    again = fresh_server(env=UNSYNCED, data_dir=server.data_dir)
    with again.client() as http:
        assert http.get(CHECKPOINTS).status_code == 404


@ALONE_OR_NOT
def test_a_second_signal_ends_it_at_once(fresh_server: StartServer, large: bytes, workers: str) -> None:
    server = fresh_server("--workers", workers, env={**UNSYNCED, "STATEROOM_DRAIN_SECONDS": "600"})
    forked = workers_of(server)
    with downloading(server, upload(server, large)):
        server.process.send_signal(signal.SIGTERM)
        assert_soon(lambda: not accepts(server))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(LONG_ENOUGH) == -signal.SIGTERM
    assert_soon(lambda: not any(is_running(pid) for pid in forked))
