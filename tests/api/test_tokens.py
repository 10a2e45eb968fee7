"""Every route of the server's own OpenAPI document, with every kind of credential."""

import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from sqlalchemy import select

from app.api import application
from app.api.requests.auth import READ
from app.catalog import Catalog
from app.catalog.tables import metadata
from tests.api.conftest import general, problem
from tests.support.measure import long, some
from tests.support.routes import OPERATIONS
from tests.support.server import Server, start_server
from tests.support.tokens import bearer, catalog_url, make_token, revoke_token
from tests.support.waiting import assert_soon

OURS, THEIRS = "ours", "theirs"
SERVER_TOKEN = "the server's own"

_NAMESPACE = "/v1/namespaces/{namespace}"
_MODEL = "/v1/models/{namespace}/{name}"
_REF = f"{_MODEL}/checkpoints/{{ref}}"
_ALIAS = f"{_MODEL}/aliases/{{alias}}"
_UPLOADS = "/v1/uploads/{namespace}/{name}"
_UPLOAD = f"{_UPLOADS}/{{upload_id}}"
_LOOSE = "/v1/loose-files/{namespace}/{name}"
NEEDS = {
    ("GET", _LOOSE): "read",
    ("PUT", _LOOSE): "write",
    ("DELETE", _LOOSE): "write",
    ("GET", f"{_LOOSE}/{{number}}"): "read",
    ("GET", "/v1/models"): "read",
    ("GET", "/v1/tokens"): "admin everywhere",
    ("POST", "/v1/tokens"): "admin everywhere",
    ("DELETE", "/v1/tokens/{token}"): "admin everywhere",
    ("GET", "/v1/namespaces"): "admin",
    ("GET", _NAMESPACE): "admin",
    ("PUT", _NAMESPACE): "admin",
    ("GET", _MODEL): "read",
    ("PATCH", _MODEL): "write",
    ("GET", f"{_MODEL}/checkpoints"): "read",
    ("POST", f"{_MODEL}/checkpoints"): "write",
    ("PUT", f"{_MODEL}/checkpoints"): "write",
    ("GET", _REF): "read",
    ("PATCH", _REF): "write",
    ("GET", f"{_MODEL}/webhooks"): "admin",
    ("POST", f"{_MODEL}/webhooks"): "admin",
    ("DELETE", f"{_MODEL}/webhooks/{{webhook}}"): "admin",
    ("GET", f"{_MODEL}/webhooks/{{webhook}}/deliveries"): "admin",
    ("GET", f"{_MODEL}/events"): "read",
    ("GET", "/v1/namespaces/{namespace}/events"): "read",
    ("GET", "/v1/events"): "admin everywhere",
    ("POST", f"{_REF}/restore"): "admin",
    ("PUT", f"{_REF}/pin"): "write",
    ("DELETE", f"{_REF}/pin"): "write",
    ("GET", f"{_MODEL}/history"): "read",
    ("POST", f"{_MODEL}/retention/preview"): "read",
    ("GET", f"{_MODEL}/aliases"): "read",
    ("GET", _ALIAS): "read",
    ("GET", f"{_ALIAS}/history"): "read",
    ("PUT", _ALIAS): "write",
    ("DELETE", _ALIAS): "write",
    ("POST", f"{_ALIAS}/rollback"): "write",
    ("PATCH", _ALIAS): "admin",
    ("DELETE", _MODEL): "admin",
    ("DELETE", _REF): "admin",
    ("GET", f"{_REF}/lineage"): "read",
    ("POST", f"{_MODEL}/merge"): "write",
    ("GET", f"{_REF}/tensors"): "read",
    ("GET", f"{_REF}/stats"): "read",
    ("GET", f"{_REF}/tensors/{{key}}"): "read",
    ("GET", f"{_REF}/tensors/{{key}}/index"): "read",
    ("GET", f"{_REF}/diff/{{other}}"): "read",
    ("GET", f"{_REF}/state_dict"): "read",
    ("GET", f"{_REF}/state_dict/{{filename}}"): "read",
    ("GET", f"{_REF}/state_dict/index"): "read",
    ("GET", f"{_REF}/files"): "read",
    ("GET", f"{_REF}/files/{{path}}"): "read",
    ("GET", f"{_REF}/file"): "read",
    ("GET", f"{_REF}/file/index"): "read",
    ("GET", f"{_REF}/file/{{filename}}"): "read",
    ("GET", f"{_REF}/original"): "read",
    ("GET", f"{_REF}/original/index"): "read",
    ("GET", f"{_REF}/original/{{filename}}"): "read",
    ("POST", f"{_REF}/warmstart"): "read",
    ("POST", f"{_REF}/links/state_dict"): "read",
    ("POST", f"{_REF}/links/file"): "read",
    ("POST", f"{_REF}/links/original"): "read",
    ("POST", _UPLOADS): "write",
    ("GET", _UPLOAD): "write",
    ("PUT", f"{_UPLOAD}/blocks/{{first}}-{{end}}"): "write",
    ("POST", f"{_UPLOAD}/commit"): "write",
    ("POST", f"{_UPLOAD}/stage"): "write",
    ("DELETE", _UPLOAD): "write",
    ("GET", "/metrics"): "read everywhere",
}
"""What each route takes, once more and independently of the code; only these may be open to all:"""
PUBLIC = {("GET", "/healthz"), ("GET", "/readyz")}

BODIES = {
    ("PUT", _NAMESPACE): b"{}",
    ("POST", "/v1/tokens"): b'{"name": "made", "scope": "admin"}',
    ("PATCH", _MODEL): b'{"best": "max:loss"}',
    ("PUT", _ALIAS): b'{"ref": 1}',
    ("POST", f"{_MODEL}/webhooks"): b'{"url": "https://1.1.1.1/"}',
    ("PATCH", _ALIAS): b'{"protected": true}',
    ("PUT", f"{_REF}/pin"): b'{"reason": "because"}',
    ("POST", f"{_MODEL}/retention/preview"): b'{"retention": {"keep_last": 1}}',
    ("POST", f"{_MODEL}/checkpoints"): general(),
    ("PUT", f"{_MODEL}/checkpoints"): general(),
    ("POST", f"{_MODEL}/merge"): b'{"of": ["latest"]}',
    ("PATCH", _REF): b'{"tags": {"seen": "yes"}}',
    ("POST", f"{_REF}/warmstart"): b'{"target": {"conv.bias": {"shape": [64], "dtype": "float32"}}}',
    ("POST", _UPLOADS): b'{"size": 100, "storages": [], "blocks": ["%s"]}' % (b"0" * 64),
}
"""Requests that would have an effect, if they were let through."""

CREDENTIALS = [
    *("none", "garbage", "an unknown id", "a wrong secret", "expired", "revoked", "a changed link", "another's link"),
    *("server", "server by Basic"),
    *(f"{scope} {where}" for scope in ("read", "write", "admin") for where in ("everywhere", OURS, THEIRS)),
]
NOBODYS = {"none", "garbage", "an unknown id", "a wrong secret", "expired", "revoked"}
SCOPES = ["read", "write", "admin"]


def tried(credential: str) -> list[tuple[str, str]]:
    """The routes that are tried with a credential. A token that is wrong or over is looked up in its turn, before the
    route has a say: with ``make test`` it is tried with a sixth of them.
    """
    return some(OPERATIONS, 6) if credential in NOBODYS - {"none", "garbage"} else OPERATIONS


@dataclass(frozen=True, slots=True)
class Guarded:
    """A server with tokens of every kind. The model ours/there has a checkpoint, ours/missing does not exist."""

    server: Server
    url: str
    tokens: dict[str, str]
    link: str

    def send(self, http: httpx.Client, operation: tuple[str, str], credential: str, name: str, **query: str):
        method, path = operation
        values = {
            "namespace": OURS,
            "name": name,
            "ref": "1",
            "other": "1",
            "filename": "x.pt",
            "path": "x.pt",
            "key": "conv.weight",
            "alias": "prod",
            "webhook": "wh0",
            "token": "read-theirs",
        }
        values |= {"upload_id": "abcdef", "first": "0", "end": "1", "number": "1"}
        address = re.sub(r"\{(\w+)\}", lambda match: values[match[1]], path)
        headers, auth = {}, None
        match credential:
            case "none":
                pass
            case "garbage":
                headers = bearer("garbage")
            case "an unknown id":
                headers = bearer(f"stateroom_{secrets.token_hex(8)}_{secrets.token_hex(32)}")
            case "a wrong secret":
                id_ = self.tokens["admin everywhere"].split("_")[1]
                headers = bearer(f"stateroom_{id_}_{secrets.token_hex(32)}")
            case "a changed link":
                query = {"signature": f"9{self.link[1:]}", **query}
            case "another's link":
                query = {"signature": self.link, **query}
            case "server by Basic":
                auth = ("anybody", SERVER_TOKEN)
            case _:
                headers = bearer(self.tokens[credential])
        return http.request(
            method, address, params=query, headers=headers, auth=auth, content=BODIES.get(operation, b"")
        )

    def everything(self) -> dict[str, list]:
        """All rows of the catalog except records of refusals, leases of the server's own sweeps and times at which
        tokens were last used, and every pack.
        """
        with closing(Catalog(self.url)) as catalog, catalog.read() as session:
            kept = {
                table.name: [column for column in table.columns if column.name != "last_used_at"]
                for table in metadata.sorted_tables
            }
            rows = {name: sorted(map(repr, session.select(select(*columns)))) for name, columns in kept.items()}
        rows["events"] = [row for row in rows["events"] if "token-refused" not in row]
        del rows["leases"]
        folder = self.server.data_dir
        files = sorted(str(path) for name in ("packs", "spool", "partial") for path in (folder / name).rglob("*"))
        return {**rows, "files": files}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    options: tuple[str, ...] = ()
    if request.param == "postgresql":
        options = ("--database-url", request.getfixturevalue("postgres").database())
    env = {"STATEROOM_SERVER_TOKEN": SERVER_TOKEN, "STATEROOM_DURABLE": "off"}
    server = start_server(tmp_path_factory.mktemp("tokens") / "data", *options, env=env)
    url = catalog_url(server)
    tokens = {"server": SERVER_TOKEN}
    for scope in SCOPES:
        tokens[f"{scope} everywhere"] = make_token(url, f"{scope}-everywhere", scope)
        for namespace in (OURS, THEIRS):
            tokens[f"{scope} {namespace}"] = make_token(url, f"{scope}-{namespace}", scope, namespace)
    tokens["expired"] = make_token(url, "expired", "admin", seconds=-1)
    tokens["revoked"] = make_token(url, "revoked", "admin")
    revoke_token(url, "revoked")
    with server.client(headers=bearer(SERVER_TOKEN)) as http:
        for model in (f"{OURS}/there", f"{OURS}/other", f"{THEIRS}/there"):
            assert http.post(f"/v1/models/{model}/checkpoints", content=general()).status_code == 201
        link = http.post(f"/v1/models/{OURS}/other/checkpoints/1/links/file").json()["url"]
    yield Guarded(server, url, tokens, link.rpartition("signature=")[2])
    server.kill()


def expected(operation: tuple[str, str], credential: str) -> tuple[int, str]:
    """The status and the code for a request with an unknown parameter: whoever is let through is told of that."""
    takes_links = operation[1].endswith("/{filename}")
    if credential in {"a changed link", "another's link"}:
        return (403, "forbidden") if takes_links else (401, "unauthorized")
    if credential in NOBODYS:
        return 401, "unauthorized"
    if not credential.startswith("server"):
        scope, where = credential.split()
        needed, _, everywhere = NEEDS[operation].partition(" ")
        has_namespace = "{namespace}" in operation[1]
        if where != "everywhere" and (everywhere or (has_namespace and where != OURS)):
            return 403, "forbidden"
        if SCOPES.index(scope) < SCOPES.index(needed):
            return 403, "forbidden"
    return 422, "unknown-parameter"


def test_it_is_said_of_every_route_what_it_takes() -> None:
    assert set(OPERATIONS) - PUBLIC == set(NEEDS)


def test_a_server_with_a_route_that_says_nothing_does_not_start() -> None:
    router = APIRouter()
    router.get("/said", dependencies=READ)(lambda: None)
    application.include(FastAPI(), router)
    router.get("/unsaid")(lambda: None)
    with pytest.raises(RuntimeError, match=r"who may use them: /unsaid$"):
        application.include(FastAPI(), router)


@long
@pytest.mark.parametrize("credential", CREDENTIALS)
def test_every_route_takes_what_it_says_and_says_the_same_of_what_is_there_and_what_is_not(
    guarded: Guarded, credential: str
) -> None:
    before = guarded.everything()

    def check(operation: tuple[str, str]) -> None:
        def send(name: str) -> httpx.Response:
            return guarded.send(http, operation, credential, name, colour="red")

        if operation in PUBLIC:
            assert_soon(lambda: send("there").status_code == 200)
            return
        answers = [send(name) for name in ("there", "missing")]
        assert [problem(answer) for answer in answers] == [expected(operation, credential)] * 2, operation
        assert answers[0].content == answers[1].content, operation
        seen = [{k: v for k, v in a.headers.items() if k not in {"x-request-id", "date"}} for a in answers]
        assert seen[0] == seen[1], operation
        assert ("www-authenticate" in answers[0].headers) is (answers[0].status_code == 401)

    with guarded.server.client() as http, ThreadPoolExecutor(16) as pool:
        list(pool.map(check, tried(credential)))
    assert guarded.everything() == before


@long
@pytest.mark.parametrize("credential", CREDENTIALS)
def test_nothing_of_a_refused_request_has_an_effect(guarded: Guarded, credential: str) -> None:
    before = guarded.everything()
    refused = [one for one in tried(credential) if one not in PUBLIC and expected(one, credential)[0] != 422]

    def check(operation: tuple[str, str]) -> None:
        for name in ("there", "missing"):
            assert problem(guarded.send(http, operation, credential, name)) == expected(operation, credential)

    with guarded.server.client() as http, ThreadPoolExecutor(16) as pool:
        list(pool.map(check, refused))
    assert guarded.everything() == before


def test_a_scope_that_is_too_little_is_told_what_would_be_enough(guarded: Guarded) -> None:
    with guarded.server.client(headers=bearer(guarded.tokens["read ours"])) as http:
        put = http.put("/v1/models/ours/there/checkpoints", content=b"x").json()["detail"]
        delete = http.delete("/v1/models/ours/there/checkpoints/1").json()["detail"]
    assert (put, delete) == (
        "This request needs a token of scope write; this one has read.",
        "This request needs a token of scope admin; this one has read.",
    )


def test_a_token_does_what_it_is_for(guarded: Guarded) -> None:
    """From an upload to its end, each step with the least that it takes."""
    read, write, admin = (bearer(guarded.tokens[f"{scope} {OURS}"]) for scope in SCOPES)
    mine = f"/v1/models/{OURS}/mine/checkpoints"
    with guarded.server.client() as http:
        assert http.post(mine, content=general(), headers=write).status_code == 201
        assert http.patch(f"{mine}/1", json={"metrics": {"acc": 1}}, headers=write).status_code == 200
        for path in ("", "/latest", "/1/tensors", "/1/state_dict", "/1/state_dict/index", "/1/file", "/1/original"):
            assert http.get(mine + path, headers=read).status_code == 200
        target = {"target": {"conv.bias": {"shape": [64], "dtype": "float32"}}}
        download = http.post(f"{mine}/1/warmstart", json=target, headers=read).json()["download"]
        assert http.get(download, headers=read).status_code == 200
        assert http.delete(f"{mine}/1", headers=write).status_code == 403
        assert http.delete(f"{mine}/1", headers=admin).status_code == 204
        assert http.get("/metrics", headers=bearer(guarded.tokens["read everywhere"])).status_code == 200


def test_a_listing_of_models_ends_at_the_namespace(guarded: Guarded) -> None:
    def listed(token: str) -> set[str]:
        names, cursor = set(), {}
        while True:
            page = http.get("/v1/models", params={"limit": 1, **cursor}, headers=bearer(token)).json()
            names |= {model["model"] for model in page["items"]}
            if page["next"] is None:
                return names
            cursor = {"cursor": page["next"]}

    with guarded.server.client() as http:
        assert listed(guarded.tokens[f"read {THEIRS}"]) == {f"{THEIRS}/there"}
        assert {name.partition("/")[0] for name in listed(guarded.tokens[f"read {OURS}"])} == {OURS}
        assert {f"{OURS}/there", f"{THEIRS}/there"} <= listed(guarded.tokens["read everywhere"])


def test_a_cursor_of_one_who_sees_all_is_of_no_use_to_one_who_does_not(guarded: Guarded) -> None:
    with guarded.server.client() as http:
        page = http.get("/v1/models?limit=1", headers=bearer(guarded.tokens["read everywhere"])).json()
        query = {"cursor": page["next"]}
        answer = http.get("/v1/models", params=query, headers=bearer(guarded.tokens[f"read {THEIRS}"]))
    assert problem(answer) == (422, "bad-cursor")


def test_a_plan_is_of_no_use_in_another_namespace(guarded: Guarded) -> None:
    target = {"target": {"conv.bias": {"shape": [64], "dtype": "float32"}}}
    with guarded.server.client() as http:
        ours = bearer(guarded.tokens[f"read {OURS}"])
        report = http.post(f"/v1/models/{OURS}/other/checkpoints/1/warmstart", json=target, headers=ours).json()
        plan = report["download"].rpartition("plan=")[2]
        theirs = bearer(guarded.tokens[f"read {THEIRS}"])
        here = f"/v1/models/{THEIRS}/there/checkpoints/1/state_dict"
        answers = [http.get(here, params={"plan": digest}, headers=theirs) for digest in (plan, "0" * len(plan))]
    assert [problem(answer) for answer in answers] == [(410, "plan-expired")] * 2
    assert answers[0].content == answers[1].content


def test_an_etag_of_another_namespace_tells_nothing(guarded: Guarded) -> None:
    with guarded.server.client() as http:
        etag = http.head(f"/v1/models/{OURS}/other/checkpoints/1/file", headers=bearer(SERVER_TOKEN)).headers["ETag"]
        headers = {**bearer(guarded.tokens[f"read {THEIRS}"]), "If-None-Match": etag}
        for name in ("other", "missing"):
            answer = http.get(f"/v1/models/{OURS}/{name}/checkpoints/1/file", headers=headers)
            assert problem(answer) == (403, "forbidden")


def test_what_is_stored_in_another_namespace_is_stored_again_and_does_not_show(guarded: Guarded) -> None:
    secret = general(seed=77)
    with guarded.server.client() as http:
        sizes = [
            http.post(f"/v1/models/{namespace}/secret/checkpoints", content=secret, headers=bearer(token)).json()
            for namespace, token in (
                (OURS, guarded.tokens[f"write {OURS}"]),
                (THEIRS, guarded.tokens[f"write {THEIRS}"]),
            )
        ]
    assert sizes[0]["new_bytes"] == sizes[1]["new_bytes"] > 0


def test_a_body_is_not_read_before_the_caller_is_judged(guarded: Guarded) -> None:
    import socket

    for credential in ("read ours", "admin theirs"):
        token = guarded.tokens[credential]
        with socket.create_connection(("127.0.0.1", guarded.server.port), timeout=60) as connection:
            connection.sendall(
                f"POST /v1/models/{OURS}/there/checkpoints HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
                f"Authorization: Bearer {token}\r\nExpect: 100-continue\r\n\r\n".encode()
            )
            assert connection.recv(65536).startswith(b"HTTP/1.1 403")


def test_no_token_is_in_the_log(guarded: Guarded) -> None:
    with guarded.server.client() as http:
        http.get("/v1/models", headers=bearer(guarded.tokens["read everywhere"]))
    secrets_of = [text.split("_")[2] for text in guarded.tokens.values() if text.startswith("stateroom_")]
    assert not [secret for secret in secrets_of if secret in guarded.server.log]
