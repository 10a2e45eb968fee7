"""The address of a client: of the connection, or as trusted proxies say, in the log, the audit log and fair shares."""

import re
from ipaddress import ip_network

import httpx
import pytest

from app.api.middleware.proxies import Proxies
from tests.conftest import StartServer
from tests.support.commands import run
from tests.support.raw_http import connected, get, rest_of
from tests.support.server import Server
from tests.support.waiting import assert_soon

TRUSTED = Proxies([ip_network("127.0.0.1"), ip_network("10.0.0.0/8"), ip_network("fd00::/8")])


def client(headers: list[tuple[str, str]], peer: str = "127.0.0.1", proxies: Proxies = TRUSTED) -> str | None:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    return proxies.client({"type": "http", "client": (peer, 5000), "headers": raw})


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 10.1.2.3", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9, 10.1.2.3", "203.0.113.9"),  # what a client wrote stands before its own address
        ("10.9.9.9, 10.1.2.3", "10.9.9.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:db8::1, fd00::7", "2001:db8::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("unknown, 10.1.2.3", "10.1.2.3"),
        ("203.0.113.9, <script>", "127.0.0.1"),
        ("", "127.0.0.1"),
        (", ,", "127.0.0.1"),
    ],
)
def test_the_client_is_the_last_address_that_is_no_trusted_proxys(chain: str, expected: str) -> None:
    assert client([("X-Forwarded-For", chain)]) == expected


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ("for=203.0.113.9", "203.0.113.9"),
        ('for="[2001:db8::1]:4711";proto=https', "2001:db8::1"),
        ("for=203.0.113.9;proto=http;by=10.0.0.1, For=10.1.2.3", "203.0.113.9"),
        ("by=10.0.0.1; for=203.0.113.9", "203.0.113.9"),
        ("for=_hidden, for=10.1.2.3", "10.1.2.3"),
        ('for="198.51.100.1, for=203.0.113.9', "203.0.113.9"),  # a quote that a client did not close
        ("proto=https", "127.0.0.1"),
        ("for=203.0.113.9, nonsense", "127.0.0.1"),
    ],
)
def test_forwarded_says_it_as_well(chain: str, expected: str) -> None:
    assert client([("Forwarded", chain)]) == expected


def test_several_fields_of_a_name_are_one_list() -> None:
    assert client([("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "203.0.113.9, 10.1.2.3")]) == "203.0.113.9"


def test_of_two_headers_that_contradict_each_other_neither_is_believed() -> None:
    both = [("X-Forwarded-For", "203.0.113.9"), ("Forwarded", "for=198.51.100.1")]
    assert client(both) == "127.0.0.1"
    assert client([both[0], ("Forwarded", "for=203.0.113.9")]) == "203.0.113.9"


@pytest.mark.parametrize("header", [("X-Forwarded-For", "203.0.113.9"), ("Forwarded", "for=203.0.113.9")])
def test_nobody_else_is_believed(header: tuple[str, str]) -> None:
    assert client([header], "192.0.2.1") == "192.0.2.1"
    assert client([header], proxies=Proxies()) == "127.0.0.1"


def logged(server: Server, request_id: str) -> dict:
    def lines() -> list[dict]:
        return [line for line in server.lines if line.get("request_id") == request_id]

    assert_soon(lambda: lines() != [])
    return lines()[0]


def test_every_line_of_the_log_has_an_address_and_a_token(fresh_server: StartServer) -> None:
    behind = fresh_server(
        env={"STATEROOM_SERVER_TOKEN": "secret", "STATEROOM_TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8"}
    )
    made = run("token", "add", "old", "--scope", "read", "--data-dir", str(behind.data_dir))
    old = made.stdout.strip()
    run("token", "revoke", "old", "--data-dir", str(behind.data_dir))
    tokens = {"good": "secret", "wrong": "hunter2", "old": old, "none": None}
    said: dict[str, tuple[int, str, str | None]] = {}
    with behind.client() as http:
        for name, token in tokens.items():
            headers = {"X-Request-Id": name, "X-Forwarded-For": "203.0.113.9, 10.0.0.2"}
            headers |= {} if token is None else {"Authorization": f"Bearer {token}"}
            http.get("/v1/models", headers=headers)
            line = logged(behind, name)
            said[name] = (line["status"], line["address"], line["token"])
        events = http.get("/v1/events", params={"kind": "token-refused"}, headers={"Authorization": "Bearer secret"})
    assert said == {
        "good": (200, "203.0.113.9", "STATEROOM_SERVER_TOKEN"),
        "wrong": (401, "203.0.113.9", "not a token"),
        "old": (401, "203.0.113.9", f"token {old.split('_')[1]}"),
        "none": (401, "203.0.113.9", None),
    }
    assert {event["address"] for event in events.json()["items"]} <= {"203.0.113.9"}
    assert "hunter2" not in behind.log
    assert old not in behind.log


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (get("ftp://localhost/healthz"), 400, "malformed-request"),
        (get("/" + "a" * 80_000), 414, "uri-too-long"),
        (get("/healthz", "X-Long: " + "a" * 80_000), 431, "head-too-large"),
    ],
)
def test_a_request_that_is_refused_unread_has_a_line_with_its_address(
    fresh_server: StartServer, sent: bytes, status: int, code: str
) -> None:
    server = fresh_server()
    with connected(server) as connection:
        connection.sendall(sent)
        answer = rest_of(connection)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    said = re.search(rb"x-request-id: (\S+)", answer)
    assert said is not None
    line = logged(server, said[1].decode())
    assert (line["status"], line["address"], line["token"], line.get("code")) == (status, "127.0.0.1", None, code)


def test_its_line_can_be_read_by_a_person(fresh_server: StartServer) -> None:
    server = fresh_server("--log-format", "text")
    with connected(server) as connection:
        connection.sendall(get("ftp://localhost/healthz"))
        said = re.search(rb"x-request-id: (\S+)", rest_of(connection))
        assert said is not None
        assert_soon(lambda: "malformed-request 400  0 ms" in server.log and f"id {said[1].decode()}" in server.log)


def test_without_trusted_proxies_the_address_is_the_connections(fresh_server: StartServer) -> None:
    server = fresh_server()
    headers = {"X-Request-Id": "mine", "X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    httpx.get(f"{server.base_url}/v1/models", headers=headers, trust_env=False, timeout=60)
    assert logged(server, "mine")["address"] == "127.0.0.1"


@pytest.mark.parametrize("given", ["nginx", "10.0.0.1/8", "10.0.0.0/99"])
def test_a_proxy_is_named_by_its_address_or_network(given: str) -> None:
    refused = run("migrate", STATEROOM_TRUSTED_PROXIES=given)
    assert refused.returncode == 2
    assert f"STATEROOM_TRUSTED_PROXIES: {given!r} is not an address or a network" in refused.stderr
