"""The fixture itself: a test that can't trust its server proves nothing."""

import os
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.server import Server, whole_lines
from tests.support.waiting import LONG_ENOUGH


def test_the_shared_server_answers_where_it_says(server: Server, http: httpx.Client) -> None:
    assert http.get("/healthz").status_code == 200
    assert server.pid > 0
    assert server.data_dir.is_dir()
    assert server.log.count("Stateroom is ready on") == 1


def test_a_line_that_is_still_being_written_is_not_read() -> None:
    assert whole_lines('{"a": 1}\n{"b":') == ['{"a": 1}']
    assert whole_lines('{"a": 1}\n{"b": 2}\n') == ['{"a": 1}', '{"b": 2}']


def test_a_killed_server_is_gone_and_restarts_on_the_same_data(fresh_server: StartServer) -> None:
    server = fresh_server()
    pid = server.pid
    server.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    server.restart()
    assert server.pid != pid
    with server.client() as http:
        assert http.get("/healthz").status_code == 200


def test_a_server_told_to_stop_ends_without_complaint(fresh_server: StartServer) -> None:
    server = fresh_server()
    server.stop()
    assert "Traceback" not in server.log


def test_a_server_that_refuses_to_start_says_why(fresh_server: StartServer) -> None:
    with pytest.raises(RuntimeError, match="STATEROOM_PORT"):
        fresh_server("--port", "70000")


def test_several_threads_may_wait_for_one_server(fresh_server: StartServer) -> None:
    """As a relay that kills a server does, and the test that looks whether it has ended."""
    server = fresh_server()
    with ThreadPoolExecutor(8) as pool:
        looks = [pool.submit(server.process.poll if number % 2 else server.process.wait) for number in range(8)]
        server.kill()
        codes = {look.result(LONG_ENOUGH) for look in looks}
    assert codes <= {None, -9}
    assert server.process.poll() == -9
    server.restart()
