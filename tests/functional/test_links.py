"""URLs for tools that send no headers: made with any token that may read, valid for one resource, for a while."""

import io
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
import torch

from app.catalog import Catalog
from tests.api.conftest import general, problem
from tests.catalog.make import count
from tests.conftest import StartServer
from tests.support.server import Server, start_server
from tests.support.tokens import bearer, catalog_url, make_token, revoke_token
from tests.support.waiting import assert_soon, while_it_lasts

SERVER_TOKEN = "the server's own"
MODEL = "/v1/models/ours/net"
C = f"{MODEL}/checkpoints"


@dataclass(slots=True)
class Guarded:
    """The model ours/net has versions 1 to 3, of which the second is the best and in the run ``other``."""

    server: Server
    url: str
    made: int = 0

    def token(self, scope: str = "read", namespace: str | None = "ours", seconds: float | None = None) -> str:
        self.made += 1
        return make_token(self.url, f"token-{self.made}", scope, namespace, seconds=seconds)

    def revoke_last(self) -> None:
        revoke_token(self.url, f"token-{self.made}")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    options: tuple[str, ...] = ()
    if request.param == "postgresql":
        options = ("--database-url", request.getfixturevalue("postgres").database())
    env = {"STATEROOM_SERVER_TOKEN": SERVER_TOKEN, "STATEROOM_DURABLE": "off"}
    server = start_server(tmp_path_factory.mktemp("links") / "data", *options, env=env)
    with server.client(headers=bearer(SERVER_TOKEN)) as http:
        for seed, query in ((1, {"loss": 3}), (2, {"loss": 1, "run": "other"}), (3, {"loss": 2})):
            assert http.post(C, params=query, content=general(seed=seed)).status_code == 201
    yield Guarded(server, catalog_url(server))
    server.kill()


@pytest.fixture
def http(guarded: Guarded) -> Iterator[httpx.Client]:
    """Sends no token."""
    with guarded.server.client() as client:
        yield client


@pytest.fixture
def link(guarded: Guarded, http: httpx.Client) -> Callable[..., str]:
    """Makes one, with a token that may read."""
    token = guarded.token()

    def make(what: str = "file", ref: str = "1", **query: object) -> str:
        answer = http.post(f"{C}/{ref}/links/{what}", params=query, headers=bearer(token))
        assert answer.status_code == 200, answer.text
        return answer.json()["url"]

    return make


Link = Callable[..., str]


@pytest.mark.parametrize(
    ("what", "query"),
    [
        ("file", {}),
        ("file", {"device": "cpu"}),
        ("file", {"weights_only": "false", "device": "meta"}),
        ("original", {}),
        ("state_dict", {}),
        ("state_dict", {"component": "optimizer_state_dict"}),
        ("state_dict", {"include": ["conv.*", "re:tied\\..*"], "rename": ["conv.=>a b&c=d/é%", "tied=>+"]}),
        ("state_dict", {"exclude": "nothing", "add_prefix": ""}),
    ],
)
def test_a_link_downloads_what_its_maker_would(http: httpx.Client, link: Link, what: str, query: dict) -> None:
    url = link(what, **query)
    right = http.get(f"{C}/1/{what}", params=query, headers=bearer(SERVER_TOKEN))
    assert right.status_code == 200
    got = http.get(url)
    assert (got.status_code, got.content) == (200, right.content)
    assert got.headers["ETag"] == right.headers["ETag"]


def test_a_link_is_for_the_whole_of_http(http: httpx.Client, link: Link) -> None:
    url = link("file", device="cpu")
    whole = http.get(url)
    head = http.head(url)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(whole.content)))
    part = http.get(url, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    assert http.get(url, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert http.request(method, url).status_code == 405


def test_any_change_of_a_link_is_refused_without_a_word_on_what_was_wrong(http: httpx.Client, link: Link) -> None:
    url = link("state_dict", include="conv.*", device="cpu")
    path, _, query = url.partition("?")
    pairs = query.split("&")
    expires, key, maker, mac = pairs[-1].removeprefix("signature=").split(".")
    folder, _, name = path.rpartition("/")
    changed = [
        path.replace("checkpoints/1", "checkpoints/2") + f"?{query}",
        path.replace("checkpoints/1", "checkpoints/v1") + f"?{query}",
        path.replace("checkpoints/1", "checkpoints/latest") + f"?{query}",
        path.replace("checkpoints/1", "checkpoints/99") + f"?{query}",
        path.replace("ours/net", "ours/missing") + f"?{query}",
        path.replace("ours/net", "theirs/net") + f"?{query}",
        path.replace("state_dict", "file") + f"?{query}",
        path.replace("state_dict", "original") + f"?{query}",
        f"{folder}/x{name}?{query}",
        f"{folder}/..%2f{name}?{query}",
        f"{path}?{'&'.join(pairs[1:])}",
        f"{path}?{'&'.join([*pairs[:-1], 'include=tied.*', pairs[-1]])}",
        f"{path}?{'&'.join([*pairs[:-1], 'run=other', pairs[-1]])}",
        f"{path}?{'&'.join([pairs[1], pairs[0], pairs[2]])}",
        f"{path}?{query}&colour=red",
        f"{path}?{query}&{pairs[-1]}",
        url.replace("device=cpu", "device=cuda"),
        f"{path}?{'&'.join(pairs[:-1])}&signature={int(expires) + 1}.{key}.{maker}.{mac}",
        f"{path}?{'&'.join(pairs[:-1])}&signature={expires}.{int(key) + 1}.{maker}.{mac}",
        f"{path}?{'&'.join(pairs[:-1])}&signature={expires}.{key}.server.{mac}",
        f"{path}?{'&'.join(pairs[:-1])}&signature={expires}.{key}.open.{mac}",
        f"{path}?{'&'.join(pairs[:-1])}&signature={expires}.{key}.{maker}.{mac[:-1]}",
        f"{path}?{'&'.join(pairs[:-1])}&signature=",
        f"{path}?signature=%00",
    ]
    assert http.get(url).status_code == 200
    with ThreadPoolExecutor(len(changed)) as pool:  # some wait for their turn to ask the catalog
        answers = list(pool.map(http.get, changed))
    assert [problem(answer) for answer in answers] == [(403, "forbidden")] * len(changed)
    assert len({answer.content for answer in answers}) == 1
    assert [http.get(each, headers=bearer(SERVER_TOKEN)).status_code for each in changed[:3]] == [403] * 3


def test_a_signature_opens_nothing_but_downloads(http: httpx.Client, link: Link) -> None:
    signature = dict(parse_qsl(urlsplit(link("file")).query))["signature"]
    for path in ("/v1/models", C, f"{C}/1", f"{C}/1/tensors", f"{C}/1/state_dict", f"{C}/1/state_dict/index"):
        assert problem(http.get(path, params={"signature": signature})) == (401, "unauthorized")
        with_token = http.get(path, params={"signature": signature}, headers=bearer(SERVER_TOKEN))
        assert problem(with_token) == (422, "unknown-parameter")


def test_a_moving_ref_is_resolved_when_the_link_is_made(http: httpx.Client, link: Link) -> None:
    assert link("file", "best").startswith(f"{C}/2/file/net-v2_")
    assert link("file", "latest").startswith(f"{C}/3/file/net-v3_")
    url = link("state_dict", "best", run="other", include="conv.*")
    assert "run=" not in url
    assert http.get(url).headers["Stateroom-Checkpoint"] == "ours/net@2"


def test_the_file_name_is_the_last_part_and_tells_selections_apart(link: Link) -> None:
    names = [
        urlsplit(link(*what, **query)).path.rpartition("/")[2]
        for what, query in (
            (("file",), {}),
            (("file",), {"device": "cpu"}),
            (("state_dict",), {}),
            (("state_dict",), {"include": "conv.*"}),
            (("state_dict", "2"), {"include": "conv.*"}),
            (("original",), {}),
        )
    ]
    assert len(set(names)) == len(names)
    assert all(name.startswith("net-v") and name.endswith(".pt") for name in names)


def test_what_cannot_be_downloaded_is_refused_when_the_link_is_made(guarded: Guarded, http: httpx.Client) -> None:
    headers = bearer(guarded.token())
    for path, query, expected in (
        (f"{C}/1/links/state_dict", {"include": "nothing"}, (422, "no-keys-matched")),
        (f"{C}/1/links/state_dict", {"component": "nothing"}, (422, "unknown-component")),
        (f"{C}/1/links/state_dict", {"includ": "x"}, (422, "unknown-parameter")),
        (f"{C}/1/links/state_dict", {"plan": "x"}, (410, "plan-expired")),
        (f"{C}/1/links/state_dict", {"plan": "x", "include": "y"}, (422, "plan-and-selection")),
        (f"{C}/1/links/state_dict", {"signature": "x"}, (422, "unknown-parameter")),
        (f"{C}/1/links/file", {"device": "toaster"}, (422, "unknown-device")),
        (f"{C}/1/links/file", {"expires": 0}, (422, "invalid-value")),
        (f"{C}/1/links/file", {"expires": 7 * 86400 + 1}, (422, "invalid-value")),
        (f"{C}/9/links/original", {}, (404, "checkpoint-not-found")),
        (f"{C}/1/links/tensors", {}, (404, "no-such-route")),
    ):
        assert problem(http.post(path, params=query, headers=headers)) == expected


def test_a_link_to_a_plan_is_good_for_as_long_as_it_says(guarded: Guarded, http: httpx.Client, link: Link) -> None:
    target = {"target": {"conv.bias": {"shape": [64], "dtype": "float32"}}}
    report = http.post(f"{C}/1/warmstart", json=target, headers=bearer(SERVER_TOKEN)).json()
    plan = report["download"].rpartition("plan=")[2]
    got = http.get(link("state_dict", plan=plan, expires=7 * 86400))
    assert list(torch.load(io.BytesIO(got.content), weights_only=True)) == ["conv.bias"]
    with closing(Catalog(guarded.url)) as catalog:
        in_days = (time.time() + 6.9 * 86400) * 1_000_000
        assert count(catalog, f"plans WHERE digest = '{plan}' AND kept_until > {in_days:.0f}") == 1


def test_a_link_ends(guarded: Guarded, http: httpx.Client) -> None:
    began = datetime.now(UTC)
    answer = http.post(f"{C}/1/links/file", params={"expires": 2}, headers=bearer(guarded.token())).json()
    ends = datetime.fromisoformat(answer["expires_at"])
    assert timedelta() < ends - began
    assert ends - datetime.now(UTC) <= timedelta(seconds=2)
    assert_soon(lambda: http.head(answer["url"]).status_code == 403)
    assert datetime.now(UTC) >= ends


def test_a_link_ends_with_the_token_that_made_it(guarded: Guarded, http: httpx.Client) -> None:
    def linked(seconds: float) -> dict | None:
        answer = http.post(f"{C}/1/links/file", headers=bearer(guarded.token(seconds=seconds)))
        if answer.status_code == 401:
            return None
        left = datetime.fromisoformat(answer.json()["expires_at"]) - datetime.now(UTC)
        assert left.total_seconds() <= seconds
        return answer.json()

    answer = while_it_lasts(linked)
    revoked = http.post(f"{C}/1/links/file", headers=bearer(guarded.token())).json()["url"]
    assert http.head(revoked).status_code == 200
    guarded.revoke_last()
    assert_soon(lambda: http.head(revoked).status_code == 403)
    assert_soon(lambda: http.head(answer["url"]).status_code == 403)


def test_a_link_to_what_is_deleted_says_nothing_of_what_else_there_is(guarded: Guarded, http: httpx.Client) -> None:
    there = "/v1/models/ours/deleted/checkpoints"
    admin = bearer(guarded.token("admin"))
    for _ in range(2):
        assert http.post(there, content=general(), headers=admin).status_code == 201
    url = http.post(f"{there}/1/links/file", headers=admin).json()["url"]
    assert http.delete(f"{there}/1", headers=admin).status_code == 204
    answer = http.get(url)
    assert problem(answer) == (404, "not-found")
    assert answer.json()["detail"] == "The file that this link points to no longer exists."


def test_what_a_link_gave_may_be_kept_by_its_caller_alone(http: httpx.Client, link: Link) -> None:
    url = link("file")
    for headers in ({}, {"If-None-Match": http.head(url).headers["ETag"]}):
        assert http.get(url, headers=headers).headers["Cache-Control"] == "private, max-age=31536000, immutable"
    by_token = http.get(f"{C}/1/file", headers=bearer(SERVER_TOKEN))
    assert by_token.headers["Cache-Control"] == "private, max-age=31536000, immutable"


def test_the_answer_with_a_link_is_kept_by_nobody(guarded: Guarded, http: httpx.Client) -> None:
    answer = http.post(f"{C}/best/links/file", headers=bearer(guarded.token()))
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Stateroom-Checkpoint"] == "ours/net@2"


def test_the_log_says_whose_token_or_link_it_was(guarded: Guarded, http: httpx.Client) -> None:
    token = guarded.token()
    url = http.post(f"{C}/1/links/file", headers={**bearer(token), "X-Request-Id": "made"}).json()["url"]
    http.get(url, headers={"X-Request-Id": "used"})
    http.get("/v1/models", headers={**bearer(SERVER_TOKEN), "X-Request-Id": "server"})
    http.get("/v1/models", headers={"X-Request-Id": "nobody"})
    refused = http.get("/v1/models/others/net", headers={**bearer(token), "X-Request-Id": "refused"})
    assert refused.status_code == 403
    name, wanted = f"token-{guarded.made}", ("made", "used", "server", "nobody", "refused")

    def logged() -> dict[str, str | None]:
        return {line["request_id"]: line["token"] for line in guarded.server.requests if line["request_id"] in wanted}

    assert_soon(lambda: len(logged()) == len(wanted))
    assert logged() == {
        "made": name,
        "used": f"link by {name}",
        "server": "STATEROOM_SERVER_TOKEN",
        "nobody": None,
        "refused": name,
    }


def test_the_log_has_no_signature(guarded: Guarded, http: httpx.Client, link: Link) -> None:
    url = link("file")
    signature = url.rpartition("signature=")[2]
    http.get(url)
    http.get(url + "x")
    assert_soon(lambda: guarded.server.log.count(urlsplit(url).path) >= 2)
    assert signature.rpartition(".")[2] not in guarded.server.log
    assert "signature=" not in guarded.server.log


def test_torch_hub_loads_from_a_link_and_caches_by_its_name(
    guarded: Guarded, link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    first, second = (guarded.server.base_url + link("state_dict", ref, device="cpu") for ref in ("1", "2"))
    for url in (first, second, first):
        state = torch.hub.load_state_dict_from_url(url, progress=False, weights_only=True)
        assert list(state) == ["conv.weight", "conv.bias", "tied.weight"]
    assert not torch.equal(
        *(torch.hub.load_state_dict_from_url(u, progress=False)["conv.bias"] for u in (first, second))
    )
    cached = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert cached == {urlsplit(url).path.rpartition("/")[2] for url in (first, second)}


def test_urllib_downloads_a_link_and_a_changed_one_is_an_error(
    guarded: Guarded, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    url = guarded.server.base_url + link("original", "3")
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert answer.read() == general(seed=3)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url.replace("/3/", "/2/"), timeout=60)


def test_another_replica_takes_the_link(fresh_server: StartServer, postgres) -> None:
    database = postgres.database()
    make_token(database, "a", "admin")
    store = fresh_server().data_dir.parent / "store"
    store.mkdir()
    options = ("--database-url", database, "--store-url", f"file://{store}")
    one, other = (fresh_server(*options, env={"STATEROOM_DURABLE": "off"}) for _ in range(2))
    token = make_token(database, "b", "write")
    with one.client() as http:
        assert http.post(C, content=general(), headers=bearer(token)).status_code == 201
        url = http.post(f"{C}/1/links/file", headers=bearer(token)).json()["url"]
        content = http.get(url).content
    with other.client() as http:
        assert http.get(url).content == content


def test_an_open_server_makes_links_too_and_they_end_with_its_openness(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    with server.client() as http:
        assert http.post(C, content=general()).status_code == 201
        url = http.post(f"{C}/1/links/file", params={"device": "cpu"}).json()["url"]
        assert http.get(url).status_code == 200
        assert problem(http.get(url.replace("=cpu", "=cuda"))) == (403, "forbidden")
        make_token(catalog_url(server), "first", "read")
        assert_soon(lambda: http.get(url).status_code == 403)
        assert_soon(lambda: http.get("/v1/models").status_code == 401)
