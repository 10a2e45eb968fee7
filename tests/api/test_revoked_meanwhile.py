"""A token that is revoked, or expires, during its upload: nothing of the upload is stored."""

import json
import socket
import time
from select import select

import pytest

from app.access.grants import KEPT
from tests.api.conftest import general
from tests.conftest import StartServer
from tests.support.raw_http import answer_on, connected, post
from tests.support.server import Server
from tests.support.tokens import bearer, catalog_url, make_token, revoke_token
from tests.support.waiting import assert_soon, is_spooling, while_it_lasts

FILE = general(size=900)  # of which half is more than a form holds in memory
URL = "/v1/models/a/b/checkpoints"


def bodies(token: str) -> list[tuple[bytes, bytes]]:
    """Uploads, cut in two: as a body, in chunks, and as a form."""
    allowed, half = f"Authorization: Bearer {token}", len(FILE) // 2
    form = b'--B\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + FILE[:half], FILE[half:] + b"\r\n--B--\r\n"
    length = sum(map(len, form))
    fields = (allowed, "Content-Type: multipart/form-data; boundary=B", f"Content-Length: {length}")
    return [
        (post(URL, allowed, f"Content-Length: {len(FILE)}", body=FILE[:half]), FILE[half:]),
        (
            post(URL, allowed, "Transfer-Encoding: chunked", body=b"%x\r\n" % len(FILE) + FILE[:half]),
            FILE[half:] + b"\r\n0\r\n\r\n",
        ),
        (post(URL, *fields, body=form[0]), form[1]),
    ]


@pytest.fixture
def guarded(fresh_server: StartServer) -> Server:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    make_token(catalog_url(server), "root", "admin")
    return server


def test_an_upload_whose_token_ends_meanwhile_is_not_stored(guarded: Server) -> None:
    url = catalog_url(guarded)

    def spooled() -> int:
        return len(list((guarded.data_dir / "spool").iterdir()))

    def arriving(token: str) -> list[tuple[socket.socket, bytes]] | None:
        """Connections that have begun an upload each, with what is still to be sent; None if the token had ended."""
        before = spooled()
        begun = [(connected(guarded), first, rest) for first, rest in bodies(token)]
        for connection, first, _ in begun:
            connection.sendall(first)

        def is_refused() -> bool:
            return select([connection for connection, _, _ in begun], [], [], 0)[0] != []

        assert_soon(lambda: spooled() == before + len(begun) or is_refused())
        if not is_refused():
            return [(connection, rest) for connection, _, rest in begun]
        for connection, _, _ in begun:
            connection.close()
        assert_soon(lambda: not is_spooling(guarded))
        return None

    def arriving_with_a_short_token(seconds: float) -> tuple[str, list[tuple[socket.socket, bytes]]] | None:
        token = make_token(url, f"over-in-{seconds}", "write", seconds=seconds)
        connections = arriving(token)
        return None if connections is None else (token, connections)

    def arriving_with_one_that_is_revoked() -> tuple[str, list[tuple[socket.socket, bytes]]]:
        token = make_token(url, "revoked", "write")
        connections = arriving(token)
        assert connections is not None
        revoke_token(url, "revoked")
        return token, connections

    uploads = [while_it_lasts(arriving_with_a_short_token), arriving_with_one_that_is_revoked()]
    with guarded.client() as http:
        for token, _ in uploads:
            assert_soon(lambda token=token: http.get("/v1/models", headers=bearer(token)).status_code == 401)
    time.sleep(KEPT)  # for which what the catalog said is good
    for _, connections in uploads:
        for connection, rest in connections:
            with connection:
                connection.sendall(rest)
                status, body = answer_on(connection)
            assert (status, json.loads(body)["code"]) == (401, "unauthorized")
    assert_soon(lambda: not is_spooling(guarded))
    root = make_token(url, "another", "admin")
    with guarded.client() as http:
        assert http.get("/v1/models/a/b", headers=bearer(root)).status_code == 404


def test_a_token_that_is_revoked_while_a_body_arrives_changes_nothing(guarded: Server) -> None:
    token = make_token(catalog_url(guarded), "stolen", "admin")
    body = b'{"name": "mine", "scope": "admin"}'
    with connected(guarded) as making, connected(guarded) as moving, guarded.client() as http:
        requests = {"POST /v1/tokens": making, "PUT /v1/models/a/b/aliases/prod": moving}
        for request, connection in requests.items():
            method, path = request.split()
            head = post(path, f"Authorization: Bearer {token}", "Expect: 100-continue", f"Content-Length: {len(body)}")
            connection.sendall(head.replace(b"POST", method.encode(), 1))
            assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
            connection.sendall(body[:10])
        revoke_token(catalog_url(guarded), "stolen")
        assert_soon(lambda: http.get("/v1/models", headers=bearer(token)).status_code == 401)
        time.sleep(KEPT)
        for request, connection in requests.items():
            connection.sendall(body[10:])
            status, answer = answer_on(connection)
            assert (status, json.loads(answer)["code"]) == (401, "unauthorized"), request


def test_what_a_token_was_needed_for_is_no_shared_caches_to_keep(guarded: Server) -> None:
    token = bearer(make_token(catalog_url(guarded), "writer", "write"))
    with guarded.client() as http:
        assert http.post(URL, content=FILE, headers=token).headers["Cache-Control"].startswith("private")
        for path in ("", "/1", "/latest", "/1/file", "/latest/original", "/1/file/index", "/1/tensors"):
            answer = http.get(URL + path, headers=token)
            assert answer.status_code == 200
            again = http.get(URL + path, headers={**token, "If-None-Match": answer.headers["ETag"]})
            part = http.get(URL + path, headers={**token, "Range": "bytes=0-9"})
            assert again.status_code == 304
            for each in (answer, again, part, http.head(URL + path, headers=token)):
                assert each.headers["Cache-Control"].startswith("private, ")
        for path in ("/1/nothing", "/9"):
            assert http.get(URL + path, headers=token).headers["Cache-Control"] == "no-store"
        assert http.get("/v1/models").headers["Cache-Control"] == "no-store"
