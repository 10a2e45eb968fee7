"""Uploads by Xet, as default installations of the Hub's client send them; tests/integrations runs that client."""

import hashlib
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
import torch
from safetensors.torch import save as save_safetensors

from tests.conftest import DATABASES
from tests.support import xet
from tests.support.hub import batch, commit, committed, files_of, sent_ahead, upload_url
from tests.support.server import Server
from tests.support.tokens import SERVER_TOKEN, bearer, catalog_url, make_token, revoke_token, running_with_a_token
from tests.support.waiting import assert_soon

MESSAGE = "X-Error-Message"


def weights(seed: int, size: int = 100_000) -> bytes:
    return save_safetensors({"w": torch.randn(size, generator=torch.Generator().manual_seed(seed))}, {"format": "pt"})


class Session:
    """An upload by Xet: the answer to a token, and requests with it."""

    def __init__(self, http: httpx.Client, model: str) -> None:
        answer = http.get(f"/api/models/{model}/xet-write-token/main")
        assert answer.status_code == 200, answer.text
        self.http = http
        self.url: str = answer.json()["casUrl"]
        self.headers = bearer(answer.json()["accessToken"])
        self.ends: int = answer.json()["exp"]

    def send(self, xorb: xet.Packed, body: bytes | None = None) -> httpx.Response:
        url = f"{self.url}/v1/xorbs/default/{xorb.hash}"
        return self.http.post(url, content=xorb.body if body is None else body, headers=self.headers)

    def sent(self, xorb: xet.Packed) -> xet.Packed:
        answer = self.send(xorb)
        assert (answer.status_code, answer.json()) == (200, {"was_inserted": True}), answer.text
        return xorb

    def shard(self, body: bytes) -> httpx.Response:
        return self.http.post(f"{self.url}/v1/shards", content=body, headers=self.headers)


@pytest.fixture
def repo(http: httpx.Client, model_name: str) -> str:
    """A repository in a namespace of its own."""
    namespace = model_name.rpartition("/")[2][-100:].lstrip("-")
    assert http.post("/api/repos/create", json={"name": "net", "organization": namespace}).status_code == 200
    return f"{namespace}/net"


@pytest.fixture
def session(http: httpx.Client, repo: str) -> Session:
    return Session(http, repo)


def is_kept(http: httpx.Client, repo: str, data: bytes) -> bool:
    return "actions" not in batch(http, repo, data)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.headers[MESSAGE]


def test_files_are_made_of_the_chunks_of_xorbs_and_committed(http: httpx.Client, repo: str, session: Session) -> None:
    data, vocabulary = weights(1), b"word " * 100_000
    half = len(data) // 2
    first = session.sent(xet.xorb(xet.pieces(data[:half]), schemes=(0, 1, 2)))
    second = session.sent(xet.xorb([*xet.pieces(data[half:], 10_000), b"word " * 1_000], schemes=(2,), footer=b""))
    last = len(second.sizes) - 1
    files = [
        xet.shard_file(
            hashlib.sha256(data).hexdigest(), [first.term(0, 2), first.term(2), second.term(0, 1), second.term(1, last)]
        ),
        xet.shard_file(hashlib.sha256(vocabulary).hexdigest(), [second.term(last)] * 100, flags=xet.WITH_SHA256),
    ]
    assert http.post(f"{session.url}/v2/shards", headers=session.headers).status_code == 404
    answer = session.shard(xet.shard(*files))
    assert (answer.status_code, answer.json()) == (200, {"result": 1}), answer.text
    made = committed(http, repo, sent_ahead("model.safetensors", data), sent_ahead("vocab.txt", vocabulary))
    assert files_of(http, repo, made) == {"model.safetensors": data, "vocab.txt": vocabulary}


def test_what_comes_twice_is_kept_once(http: httpx.Client, repo: str, session: Session) -> None:
    data = weights(2)
    xorb = session.sent(xet.xorb(xet.pieces(data)))
    again = session.send(xorb)
    assert (again.status_code, again.json()) == (200, {"was_inserted": False})
    shard = xet.shard(*[xet.shard_file(hashlib.sha256(data).hexdigest(), [xorb.term()])] * 2)
    assert [session.shard(shard).status_code for _ in range(2)] == [200, 200]
    committed(http, repo, sent_ahead("model.safetensors", data))
    assert session.shard(shard).status_code == 200
    later = xet.shard_of(data + data, xorb.term(), xorb.term())
    assert session.shard(later).status_code == 200
    assert is_kept(http, repo, data + data)


def test_a_shard_may_refer_only_to_xorbs_of_its_own_session(http: httpx.Client, repo: str, session: Session) -> None:
    data = weights(3)
    xorb = Session(http, repo).sent(xet.xorb(xet.pieces(data)))
    status, message = refusal(session.shard(xet.shard_of(data, xorb.term())))
    assert (status, xorb.hash in message, "write token" in message) == (400, True, True)
    assert not is_kept(http, repo, data)
    assert commit(http, repo, sent_ahead("model.safetensors", data)).status_code == 410


def test_a_file_that_is_not_what_its_shard_says_is_not_kept(http: httpx.Client, repo: str, session: Session) -> None:
    data = weights(4)
    xorb = session.sent(xet.xorb(xet.pieces(data)))
    name, size, first, end = xorb.term()
    other = bytes([data[0] ^ 1]) + data[1:]
    for body, status, words in (
        (xet.shard_of(other, xorb.term()), 422, "SHA-256"),
        (xet.shard_of(data, (name, size - 1, first, end)), 400, "bytes, not the"),
        (xet.shard_of(data, (name, size, first, end + 1)), 400, "there are no chunks"),
        (xet.shard_of(data, (name, size, end, first)), 400, "there are no chunks"),
        (xet.shard_of(data, xorb.term(1)), 422, "SHA-256"),
        (xet.shard_of(data, xorb.term())[:-100], 400, "ends early"),
        (b"no shard", 400, "shard"),
        (b"", 400, "shard"),
    ):
        found = refusal(session.shard(body))
        assert (found[0], words in found[1]) == (status, True), found
        assert not is_kept(http, repo, data)
        assert not is_kept(http, repo, other)
    assert session.shard(xet.shard_of(data, xorb.term())).status_code == 200


def test_a_damaged_xorb_is_not_kept(server: Server, http: httpx.Client, repo: str, session: Session) -> None:
    data = weights(5)
    xorb = xet.xorb(xet.pieces(data), schemes=(1,), footer=b"")
    shard = xet.shard_of(data, xorb.term())
    for body in (xorb.body[:-1], xorb.body[:4] + b"\7" + xorb.body[5:], b"XETBLOB", b"", xorb.body[8:]):
        status, message = refusal(session.send(xorb, body))
        assert (status, "xorb" in message) == (400, True), message
        assert session.shard(shard).status_code == 400
    parts = urlsplit(session.url)
    with socket.create_connection(("127.0.0.1", server.port)) as killed:
        lines = [f"POST {parts.path}/v1/xorbs/default/{xorb.hash} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"Authorization: {session.headers['Authorization']}", f"Content-Length: {len(xorb.body)}", "", ""]
        killed.sendall("\r\n".join(lines).encode() + xorb.body[:100_000])
    assert session.shard(shard).status_code == 400
    session.sent(xorb)
    assert session.shard(shard).status_code == 200
    assert is_kept(http, repo, data)


def test_a_xorb_that_is_too_long_or_has_no_valid_name_is_refused(session: Session) -> None:
    xorb = xet.xorb([b"abc"])
    long = session.http.post(
        f"{session.url}/v1/xorbs/default/{xorb.hash}",
        content=iter([b"\0" * 2**20] * 70),
        headers={**session.headers, "Content-Length": str(70 * 2**20)},
    )
    assert long.status_code == 413
    for url in (f"{session.url}/v1/xorbs/default/{xorb.hash[:-1]}", f"{session.url[:-1]}/v1/xorbs/default/{xorb.hash}"):
        assert session.http.post(url, content=xorb.body, headers=session.headers).status_code == 422


def test_xorbs_count_against_the_quota_until_their_files_do(http: httpx.Client, repo: str, session: Session) -> None:
    namespace = repo.partition("/")[0]
    data, other = weights(6), weights(7)
    first, second = xet.xorb(xet.pieces(data)), xet.xorb(xet.pieces(other), schemes=(1,))
    try:
        assert http.put(f"/v1/namespaces/{namespace}", json={"quota_bytes": len(data) * 3 // 2}).status_code == 200
        session.sent(first)
        for refused in (session.send(second), Session(http, repo).send(second)):
            assert (refused.status_code, refused.json()["code"]) == (507, "quota-exceeded")
        twice = session.shard(xet.shard_of(data + data, first.term(), first.term()))
        assert (twice.status_code, twice.json()["code"]) == (507, "quota-exceeded")
        assert session.shard(xet.shard_of(data, first.term())).status_code == 200
        assert http.put(f"/v1/namespaces/{namespace}", json={"quota_bytes": len(data) * 5 // 2}).status_code == 200
        session.sent(second)
    finally:
        http.put(f"/v1/namespaces/{namespace}", json={"quota_bytes": None})


def test_there_is_no_token_for_a_model_that_nobody_made(http: httpx.Client, repo: str) -> None:
    answer = http.get(f"/api/models/{repo}-not/xet-write-token/main")
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "RepoNotFound")


@pytest.fixture(scope="module", params=DATABASES)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_with_a_token(request, tmp_path_factory) as server:
        yield server


def test_a_token_is_for_uploads_to_one_model_as_long_as_its_maker_may_write(guarded: Server) -> None:
    url = catalog_url(guarded)
    makers = {
        "writer": make_token(url, "writer", "write", "red"),
        "reader": make_token(url, "reader", "read", "red"),
        "other": make_token(url, "other", "write", "blue"),
    }
    data = weights(8, 100)
    xorb = xet.xorb([data])
    with guarded.client() as http:
        http.headers.update(bearer(SERVER_TOKEN))
        for name in ("net", "twin"):
            assert http.post("/api/repos/create", json={"name": name, "organization": "red"}).status_code == 200
        for who in ("reader", "other"):
            http.headers.update(bearer(makers[who]))
            assert http.get("/api/models/red/net/xet-write-token/main").status_code == 403, who
        http.headers.update(bearer(makers["writer"]))
        session, twin = Session(http, "red/net"), Session(http, "red/twin")
        assert makers["writer"] not in session.headers["Authorization"]
        for headers, status in (
            (twin.headers, 403),
            (bearer("0.0.nobody." + "a" * 43), 403),
            (bearer(makers["reader"]), 403),
            (bearer(makers["other"]), 403),
            (bearer("nonsense"), 401),
        ):
            sent = http.post(f"{session.url}/v1/xorbs/default/{xorb.hash}", content=xorb.body, headers=headers)
            assert sent.status_code == status, headers
            assert http.post(f"{session.url}/v1/shards", content=b"", headers=headers).status_code == status, headers
        signature = session.headers["Authorization"].removeprefix("Bearer ")
        href = upload_url(http, "red/net", data)
        assert httpx.put(href.partition("&")[0] + f"&signature={signature}", content=data).status_code == 403
        for path in ("/v1/models/red/net", "/api/models/red/net", "/api/whoami-v2"):
            assert http.get(path, headers=session.headers).status_code == 401, path
        session.sent(xorb)
        assert twin.shard(xet.shard_of(data, xorb.term())).status_code == 400
        assert session.shard(xet.shard_of(data, xorb.term())).status_code == 200
        committed(http, "red/net", sent_ahead("model.safetensors", data))
        revoke_token(url, "writer")
        assert_soon(lambda: session.send(xorb).status_code == 403)
        assert session.shard(xet.shard_of(data, xorb.term())).status_code == 403
