"""The command line, as a process."""

import os
import re
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.commands import run
from tests.support.forks import Forked, fork
from tests.support.server import server_environment
from tests.support.waiting import LONG_ENOUGH, assert_soon


def test_a_server_open_to_others_needs_a_token_and_says_how_to_make_one(tmp_path: Path) -> None:
    refused = run("serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 2
    assert "STATEROOM_SERVER_TOKEN" in refused.stderr
    assert "token_urlsafe" in refused.stderr
    assert "--insecure" in refused.stderr
    assert not (tmp_path / "data").exists()


def test_with_a_token_or_without_care_it_is_open_to_others(fresh_server: StartServer) -> None:
    fresh_server("--host", "0.0.0.0", env={"STATEROOM_SERVER_TOKEN": "t"})
    fresh_server("--host", "0.0.0.0", "--insecure")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("serve", "--port", "99999"), "STATEROOM_PORT"),
        (("serve", "--store-url", "ftp://bucket"), "file:///PATH"),
        (("serve", "--colour", "red"), "--colour"),
        ((), "COMMAND"),
        (("migrate", "--database-url", "mysql://x"), "sqlite"),
        (("serve", "--port", "0", "--database-url", "postgresql://x"), "sqlite"),
        (("serve", "--port", "0", "--data-dir", "/dev/null/x"), "/dev/null"),
    ],
)
def test_a_wrong_command_is_one_short_complaint(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    wrong = run(*arguments, STATEROOM_DATA_DIR=str(tmp_path))
    assert wrong.returncode in {1, 2}
    assert said in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_it_says_its_version() -> None:
    said = run("--version")
    assert (said.returncode, said.stdout.split()[0], said.stderr) == (0, "stateroom-server", "")
    assert said.stdout.split()[1][0].isdigit()


def test_a_taken_port_is_one_short_complaint(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wrong = run("serve", "--port", str(port), "--data-dir", str(tmp_path))
    assert wrong.returncode == 1
    assert wrong.stderr == f"stateroom-server: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_one_data_dir_has_one_server(fresh_server: StartServer) -> None:
    server = fresh_server()
    wrong = run("serve", "--port", "0", "--data-dir", str(server.data_dir))
    assert wrong.returncode == 1
    assert "another server" in wrong.stderr


def test_migrate_makes_a_database_and_may_be_run_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    for _ in range(2):
        done = run("migrate", "--database-url", url, STATEROOM_DATA_DIR=str(tmp_path))
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "catalog.db").exists()


def test_each_request_is_one_line_of_json_and_health_checks_are_none(fresh_server: StartServer) -> None:
    server = fresh_server()
    with server.client() as http:
        for path in ("/healthz", "/nowhere", "/v1/models"):
            http.get(path, headers={"X-Request-Id": "asked" + path.replace("/", "-")})
    assert server.log.startswith(f"Stateroom is ready on {server.base_url}\n")
    assert_soon(lambda: len(server.requests) == 2)  # a request is logged when its answer is out
    assert sorted((line["request_id"], line["route"], line["status"]) for line in server.lines) == [
        ("asked-nowhere", "none", 404),
        ("asked-v1-models", "/v1/models", 200),
    ]


def test_what_is_no_http_is_answered_and_not_logged(fresh_server: StartServer) -> None:
    server = fresh_server()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(b"hello\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")
    with server.client() as http:
        assert http.get("/healthz", headers={"Connection": "Upgrade", "Upgrade": "websocket"}).status_code == 200
    assert server.log == f"Stateroom is ready on {server.base_url}\n"


def test_ctrl_c_ends_it_well(fresh_server: StartServer) -> None:
    server = fresh_server()
    assert server.stop() == 0
    assert server.log == f"Stateroom is ready on {server.base_url}\n"


def test_it_listens_on_ipv6_too(fresh_server: StartServer) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert fresh_server("--host", "::1").base_url.startswith("http://[::1]:")


@contextmanager
def on_a_terminal(*arguments: str) -> Iterator[tuple[Forked, Callable[[str], str]]]:
    """A server on a terminal of its own, and a function that waits until the terminal shows a pattern."""
    ours, theirs = os.openpty()
    terminal = Path(os.ttyname(theirs))
    process = fork(
        "app.__main__",
        ["serve", "--port", "0", *arguments],
        server_environment(),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    shown = ""

    def shows(pattern: str) -> str:
        nonlocal shown
        while not re.search(pattern, shown):
            assert select.select([ours], [], [], LONG_ENOUGH)[0], shown
            shown += os.read(ours, 65536).decode()
        return shown

    try:
        yield process, shows
    finally:
        process.kill()
        process.wait()
        os.close(theirs)
        os.close(ours)


def test_on_a_terminal_it_speaks_to_a_person(tmp_path: Path) -> None:
    with on_a_terminal("--data-dir", str(tmp_path / "data")) as (process, shows):
        said = shows("checkpoints\r\n")
        address = re.search(r"Stateroom is ready on (http://\S+)", said)
        assert address is not None
        assert f"Its data is in {tmp_path / 'data'}. Upload a first checkpoint" in said
        assert f"  curl -T checkpoint.tar {address[1]}/v1/models/vision/classifier/checkpoints\r\n" in said
        httpx.get(
            f"{address[1]}/v1/models/a%0A%1B[31mred", headers={"X-Request-Id": "mine"}, trust_env=False, timeout=60
        )
        line = next(line for line in shows("id mine\r\n").splitlines() if line.endswith("id mine"))
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d GET /v1/models/a\\n\\x1b\[31mred 404  [\d,]+ ms  [\d,]+ B out  127\.0\.0\.1  id mine", line
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG_ENOUGH) == 0


def test_the_format_of_the_log_may_be_chosen(fresh_server: StartServer) -> None:
    text = fresh_server("--log-format", "text")
    with text.client() as http:
        http.get("/nowhere", headers={"X-Request-Id": "mine"})
    assert_soon(lambda: "GET /nowhere 404" in text.log)
    refused = run("serve", "--log-format", "xml")
    assert refused.returncode == 2
    assert "--log-format or STATEROOM_LOG_FORMAT: Input should be 'text' or 'json'" in refused.stderr
