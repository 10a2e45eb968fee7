"""Request framing, byte by byte: every answer belongs to the request that it is for."""

import re
import socket

import pytest

from tests.api.conftest import general
from tests.support.raw_http import connected, get, hang_up, post, rest_of
from tests.support.server import Server

LAST = get("/healthz", "X-Request-Id: last", "Connection: close")
FILE = general(size=300)


def named(name: str, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    request = get("/healthz", f"X-Request-Id: {name}", *fields)
    return request.replace(b"GET", method.encode(), 1).replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1)


def answers(server: Server, request: bytes) -> list[str]:
    """The status of each answer, and the name of the request that it is for. What is no request is refused without a
    name.
    """
    with connected(server) as connection:
        connection.sendall(request)
        heads = re.findall(rb"HTTP/1\.1 (\d+)[^\r]*\r\n((?:[^\r]+\r\n)*)", rest_of(connection))
    found = []
    for status, fields in heads:
        name = re.search(rb"x-request-id: (\S+)", fields)
        found.append(f"{status.decode()} {name[1].decode() if name and name[1] in request else ''}".strip())
    return found


@pytest.mark.parametrize(
    "fields",
    [
        ("Connection: upgrade", "Upgrade: websocket"),
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
        ("Connection: upgrade", "Upgrade: TLS/1.2, websocket", "Content-Length: 0"),
        ("Upgrade: websocket",),
    ],
)
def test_requests_behind_one_that_asks_for_an_upgrade_are_answered_in_order(
    server: Server, fields: tuple[str, ...]
) -> None:
    asked = named("one", *fields) + named("two", *fields) + named("three") + LAST
    assert answers(server, asked) == ["200 one", "200 two", "200 three", "200 last"]


def test_a_connect_is_refused_and_http_goes_on_behind_it(server: Server) -> None:
    asked = named("one", method="CONNECT") + named("two") + LAST
    assert answers(server, asked) == ["405 one", "200 two", "200 last"]


def test_what_is_no_http_behind_an_upgrade_ends_the_connection(server: Server) -> None:
    asked = named("one", "Connection: upgrade", "Upgrade: h2c") + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + LAST
    assert answers(server, asked) == ["200 one", "400"]


def test_an_upgrade_that_comes_byte_by_byte_is_answered_too(server: Server) -> None:
    with connected(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in named("one", "Connection: upgrade", "Upgrade: x") + LAST:
            connection.sendall(bytes([byte]))
        assert re.findall(rb"x-request-id: (\S+)", rest_of(connection)) == [b"one", b"last"]


@pytest.mark.parametrize(
    "asked",
    [
        named("one", version="1.0"),
        named("one", "Connection: keep-alive", version="1.0"),
        named("one", "Connection: close"),
        named("one", "Connection: close, keep-alive"),
        named("one", "Connection: keep-alive", "Connection: close"),
    ],
)
def test_nothing_is_answered_behind_a_last_request(server: Server, asked: bytes) -> None:
    assert answers(server, asked + named("two")) == ["200 one"]


BAD = [
    post("/nowhere", "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    post("/nowhere", "Content-Length: 5", "Content-Length: 5", body=b"hello"),
    post("/nowhere", "Content-Length: 5", "Content-Length: 6", body=b"hello"),
    post("/nowhere", "Content-Length: 5, 5", body=b"hello"),
    post("/nowhere", "Content-Length: +5", body=b"hello"),
    post("/nowhere", "Content-Length: 0x5", body=b"hello"),
    post("/nowhere", "Content-Length: 1_0", body=b"hello"),
    post("/nowhere", "Content-Length: ", body=b""),
    post("/nowhere", "Transfer-Encoding: gzip", body=b"hello"),
    post("/nowhere", "Transfer-Encoding: gzip, chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
    post("/nowhere", "Transfer-Encoding: chunked, chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
    post("/nowhere", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    post("/nowhere", "Transfer-Encoding: xchunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
    post("/nowhere", "Transfer-Encoding : chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
    post("/nowhere", "Transfer-Encoding: chunked", body=b"5\nhello\r\n0\r\n\r\n"),
    post("/nowhere", "Transfer-Encoding: chunked", body=b"0x5\r\nhello\r\n0\r\n\r\n"),
    post("/nowhere", "Connection: upgrade", "Upgrade: h2c", "Content-Length: 5", body=b"hello"),
    named("one", "X: a\r\n b"),
    named("one", "X: a\rb"),
    named("one", "X: a\0b"),
    named("one", "no colon"),
    named("one").replace(b"\r\n", b"\n"),
    named("one", version="2.0"),
    named("one", version="0.9"),
    b"GET /healthz\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    get("ftp://localhost/healthz"),
    get("localhost:80"),
    named("one", method="BREW"),
]


@pytest.mark.parametrize("asked", BAD)
def test_framing_that_two_readers_might_read_differently_ends_the_connection(server: Server, asked: bytes) -> None:
    found = answers(server, asked + LAST)
    assert found in (["400"], ["404", "400"])  # a chunk is found to be wrong when its request is being answered


def test_trailers_and_extensions_of_chunks_are_dropped(server: Server) -> None:
    body = b"5;a=b\r\nhello\r\n0;c\r\nHost: evil.example\r\nX-Request-Id: two\r\n\r\n"
    asked = post("/nowhere", "X-Request-Id: one", "Transfer-Encoding: chunked", body=body)
    assert answers(server, asked + LAST) == ["404 one", "200 last"]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "DELETE", "PATCH", "QUERY"])
def test_a_body_belongs_to_its_request_whatever_the_method(server: Server, method: str) -> None:
    asked = named("one", "Content-Length: 35", method=method) + b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"
    found = answers(server, asked + LAST)
    assert [each.split()[1] for each in found] == ["one", "last"]


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        ("http://localhost/healthz", "evil.example", "200"),
        ("HTTP://LOCALHOST:1/healthz", "evil.example", "200"),
        ("http://evil.example/healthz", "localhost", "403"),
        ("http://me@localhost/healthz", "localhost", "400"),
        ("http:///healthz", "localhost", "400"),
        ("http://localhost", "localhost", "200"),
        ("http://localhost?x=/healthz", "localhost", "200"),
        ("*", "localhost", "404"),
    ],
)
def test_the_authority_of_an_absolute_target_is_the_host(server: Server, target: str, host: str, expected: str) -> None:
    asked = named("one").replace(b"/healthz", target.encode()).replace(b"Host: localhost", f"Host: {host}".encode())
    assert answers(server, asked + LAST) == [f"{expected} one", "200 last"]


def test_an_absolute_target_does_not_stand_in_for_a_host(server: Server) -> None:
    asked = named("one").replace(b"/healthz", b"http://localhost/healthz").replace(b"Host: localhost\r\n", b"")
    assert answers(server, asked + LAST) == ["400 one", "200 last"]


@pytest.mark.parametrize("size", [300, 1], ids=["past the parser", "through it"])
def test_an_upload_whose_sender_has_said_all_is_answered(server: Server, checkpoints: str, size: int) -> None:
    file = general(size=size)
    for asked in (
        post(checkpoints, f"Content-Length: {len(file)}", body=file),
        post(checkpoints, "Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(file), file)),
    ):
        assert hang_up(server, asked, half=True).startswith(b"HTTP/1.1 201 ")


def test_whoever_has_asked_all_is_answered(server: Server, checkpoints: str) -> None:
    stored = hang_up(server, post(checkpoints, f"Content-Length: {len(FILE)}", body=FILE), half=True)
    assert stored.startswith(b"HTTP/1.1 201 ")
    assert hang_up(server, get(f"{checkpoints}/1/original"), half=True).endswith(FILE)
    answer = hang_up(server, named("one") + named("two"), half=True)
    assert re.findall(rb"x-request-id: (\S+)", answer) == [b"one", b"two"]
    assert hang_up(server, named("one") + b"GET /heal", half=True).count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("sent", [5, len(FILE) - 1])
def test_a_body_that_ends_early_is_told_so_and_leaves_nothing(server: Server, checkpoints: str, sent: int) -> None:
    for asked in (
        post(checkpoints, f"Content-Length: {len(FILE)}", body=FILE[:sent]),
        post(checkpoints, "Transfer-Encoding: chunked", body=b"%x\r\n" % len(FILE) + FILE[:sent]),
    ):
        answer = hang_up(server, asked, half=True)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"incomplete-upload" in answer
    assert hang_up(server, get(checkpoints), half=True).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    ("asked", "continued"),
    [
        (post("/v1/models/a/expect/checkpoints", "Expect: 100-continue", "Content-Length: 5", body=b"hello"), True),
        (
            post("/v1/models/a/expect/checkpoints", "Expect: 100-continue", "Content-Length: 5", body=b"hello").replace(
                b"HTTP/1.1", b"HTTP/1.0"
            ),
            False,
        ),
        (post("/v1/models/a/expect/checkpoints", "Expect: tea", "Content-Length: 5", body=b"hello"), False),
        (post("/v1/models/a/expect/checkpoints", "Expect: 100-continue", "Content-Length: 0"), False),
    ],
    ids=["1.1", "1.0", "something else", "no body"],
)
def test_only_http_1_1_with_a_body_is_told_to_continue(server: Server, asked: bytes, continued: bool) -> None:
    found = answers(server, asked + LAST)
    assert [each.split()[0] for each in found][: continued + 1] == (["100", "422"] if continued else ["422"])
