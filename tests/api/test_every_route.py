"""Properties of every route, read from the server's own OpenAPI document."""

import base64
import re

import httpx
import pytest
from fastapi.routing import APIRoute

from app.api import application
from app.api.metrics import Metrics
from tests.api.conftest import Upload, exactly, problem
from tests.conftest import StartServer
from tests.support.routes import OPERATIONS, address
from tests.support.server import Server
from tests.support.waiting import assert_soon, until_ready

PUBLIC = {"/healthz", "/readyz"}


def test_every_route_is_ready_before_the_first_request() -> None:
    ready = {route.path_format for route in application.build("0", Metrics()).routes if isinstance(route, APIRoute)}
    assert {path for _, path in OPERATIONS} <= ready


def test_the_contracts_routes_are_all_there() -> None:
    model = "/v1/models/{namespace}/{name}"
    checkpoint = model + "/checkpoints/{ref}"
    uploads = "/v1/uploads/{namespace}/{name}"
    loose = "/v1/loose-files/{namespace}/{name}"
    assert set(OPERATIONS) == {
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("GET", "/v1/tokens"),
        ("POST", "/v1/tokens"),
        ("DELETE", "/v1/tokens/{token}"),
        ("GET", "/v1/namespaces"),
        ("GET", "/v1/namespaces/{namespace}"),
        ("PUT", "/v1/namespaces/{namespace}"),
        ("GET", model),
        ("PATCH", model),
        ("DELETE", model),
        ("GET", model + "/history"),
        ("POST", model + "/retention/preview"),
        ("POST", model + "/checkpoints/{ref}/restore"),
        ("PUT", model + "/checkpoints/{ref}/pin"),
        ("DELETE", model + "/checkpoints/{ref}/pin"),
        ("GET", model + "/aliases"),
        ("GET", model + "/aliases/{alias}"),
        ("PUT", model + "/aliases/{alias}"),
        ("PATCH", model + "/aliases/{alias}"),
        ("DELETE", model + "/aliases/{alias}"),
        ("POST", model + "/aliases/{alias}/rollback"),
        ("GET", model + "/aliases/{alias}/history"),
        ("GET", model + "/webhooks"),
        ("POST", model + "/webhooks"),
        ("DELETE", model + "/webhooks/{webhook}"),
        ("GET", model + "/webhooks/{webhook}/deliveries"),
        ("GET", model + "/events"),
        ("GET", "/v1/namespaces/{namespace}/events"),
        ("GET", "/v1/events"),
        ("GET", model + "/checkpoints"),
        ("POST", model + "/checkpoints"),
        ("PUT", model + "/checkpoints"),
        ("GET", checkpoint),
        ("PATCH", checkpoint),
        ("DELETE", checkpoint),
        ("GET", checkpoint + "/lineage"),
        ("POST", model + "/merge"),
        ("GET", checkpoint + "/tensors"),
        ("GET", checkpoint + "/tensors/{key}"),
        ("GET", checkpoint + "/tensors/{key}/index"),
        ("GET", checkpoint + "/stats"),
        ("GET", checkpoint + "/files"),
        ("GET", checkpoint + "/files/{path}"),
        ("GET", checkpoint + "/diff/{other}"),
        ("GET", checkpoint + "/state_dict"),
        ("GET", checkpoint + "/state_dict/{filename}"),
        ("GET", checkpoint + "/state_dict/index"),
        ("GET", checkpoint + "/file"),
        ("GET", checkpoint + "/file/index"),
        ("GET", checkpoint + "/file/{filename}"),
        ("GET", checkpoint + "/original"),
        ("GET", checkpoint + "/original/index"),
        ("GET", checkpoint + "/original/{filename}"),
        ("POST", checkpoint + "/warmstart"),
        ("POST", checkpoint + "/links/state_dict"),
        ("POST", checkpoint + "/links/file"),
        ("POST", checkpoint + "/links/original"),
        ("POST", uploads),
        ("GET", uploads + "/{upload_id}"),
        ("PUT", uploads + "/{upload_id}/blocks/{first}-{end}"),
        ("POST", uploads + "/{upload_id}/commit"),
        ("POST", uploads + "/{upload_id}/stage"),
        ("DELETE", uploads + "/{upload_id}"),
        ("GET", loose),
        ("PUT", loose),
        ("DELETE", loose),
        ("GET", loose + "/{number}"),
    }


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_an_unknown_parameter_is_refused(http: httpx.Client, method: str, path: str) -> None:
    if path in PUBLIC:
        assert_soon(lambda: http.request(method, address(path), params={"colour": "red"}).status_code == 200)
    else:
        answer = http.request(method, address(path), params={"colour": "red"})
        assert problem(answer) == (422, "unknown-parameter")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Server:
    from tests.support.server import start_server

    server = start_server(
        tmp_path_factory.mktemp("guarded") / "data",
        env={"STATEROOM_SERVER_TOKEN": "s3cret", "STATEROOM_DURABLE": "off"},
    )
    yield server
    server.kill()


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_route_but_health_answers_without_the_token(guarded: Server, method: str, path: str) -> None:
    with guarded.client() as http:
        if path in PUBLIC:
            assert_soon(lambda: http.request(method, address(path)).status_code == 200)
            return
        answer = http.request(method, address(path))
        assert problem(answer) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        for wrong in ({"Authorization": "Bearer s3cre"}, {"Authorization": "Basic !!"}, {"Authorization": "s3cret"}):
            assert http.request(method, address(path), headers=wrong).status_code == 401
        right = http.request(method, address(path), headers={"Authorization": "Bearer s3cret"})
        assert right.status_code != 401
        assert http.request(method, address(path), auth=("anybody", "s3cret")).status_code != 401


def test_the_description_is_public_and_names_every_way_in(guarded: Server) -> None:
    with guarded.client() as http:
        assert http.get("/docs").status_code == 200
        document = http.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert {name: scheme.get("scheme", scheme.get("name")) for name, scheme in schemes.items()} == {
        "HTTPBearer": "bearer",
        "HTTPBasic": "basic",
        "Link": "signature",
    }
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            ways = {name for each in operation.get("security", ()) for name in each}
            by_link = {"Link"} if path.endswith("/{filename}") else set()
            assert ways == (set() if path in PUBLIC else {"HTTPBearer", "HTTPBasic"} | by_link), (method, path)


def test_the_page_for_people_runs_no_script_and_loads_nothing(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert not re.search(r"<(script|link|img|iframe|object|embed)|\bon\w+=|src=|https?://|url\(", page.text)
    for method, path in OPERATIONS:
        assert f"<b>{method}</b> {path}" in page.text


@pytest.mark.parametrize(
    "header",
    [
        b"Basic " + base64.b64encode("zoë:anything".encode()),
        b"Basic " + base64.b64encode(b"no colon"),
        b"Basic " + base64.b64encode(b"\xff\xfe:x"),
        b"Basic !!",
        b"Basic",
        b"Bearer \xff",
        b"Digest x",
    ],
)
def test_any_authorization_is_right_for_an_open_server_and_wrong_for_a_guarded_one(
    http: httpx.Client, guarded: Server, header: bytes
) -> None:
    assert http.get("/v1/models", headers={b"Authorization": header}).status_code == 200
    with guarded.client() as other:
        answer = other.get("/v1/models", headers={b"Authorization": header})
    assert problem(answer) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_token_may_hold_any_letter(fresh_server: StartServer) -> None:
    token = "pässwörd-✓:x".encode()
    server = fresh_server(env={"STATEROOM_SERVER_TOKEN": token.decode(), "STATEROOM_DURABLE": "off"})
    with server.client() as http:
        for right in (b"Bearer " + token, b"bearer  " + token, b"Basic " + base64.b64encode(b"zo\xc3\xab:" + token)):
            assert http.get("/v1/models", headers={b"Authorization": right}).status_code == 200
        for wrong in (b"Bearer " + token[:-1], b"Basic " + base64.b64encode(token)):
            assert http.get("/v1/models", headers={b"Authorization": wrong}).status_code == 401


def test_a_body_is_not_read_before_the_token(guarded: Server) -> None:
    import socket

    for path, method in (("/checkpoints", "POST"), ("/checkpoints/1/warmstart", "POST"), ("", "PATCH")):
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=60) as connection:
            connection.sendall(
                f"{method} /v1/models/a/b{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
                "Expect: 100-continue\r\n\r\n".encode()
            )
            assert connection.recv(65536).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/models", "GET, HEAD"),
        ("PUT", "/v1/models/a/b", "DELETE, GET, HEAD, PATCH"),
        ("PATCH", "/v1/models/a/b/checkpoints", "GET, HEAD, POST, PUT"),
        ("POST", "/v1/models/a/b/checkpoints/1", "DELETE, GET, HEAD, PATCH"),
        ("GET", "/v1/models/a/b/checkpoints/1/warmstart", "POST"),
        ("OPTIONS", "/healthz", "GET, HEAD"),
    ],
)
def test_a_method_that_is_not_there_is_405_with_those_that_are(
    http: httpx.Client, method: str, path: str, allowed: str
) -> None:
    answer = http.request(method, path)
    assert problem(answer) == (405, "method-not-allowed")
    assert answer.headers["Allow"] == allowed


def test_openapi_documents_every_route(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert operation["description"]
            assert all(answer["description"] for answer in operation["responses"].values())
    for path, methods in document["paths"].items():
        for operation in methods.values():
            codes = set(operation["responses"])
            assert path in PUBLIC or codes >= {"400", "401", "403", "422", "500", "503"}
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and path not in PUBLIC:
                    problem_json = answer["content"]["application/problem+json"]
                    assert problem_json["example"]["status"] == int(status)
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(set(ids)) == len(ids)
    assert http.get("/docs").status_code == 200


SECRETS = re.compile(
    r"Traceback|File \"|site-packages|/tmp/|/home/|/root/|sqlite|SELECT |INSERT |sqlalchemy", re.IGNORECASE
)


def test_no_error_tells_what_is_none_of_the_users_business(
    server: Server, checkpoints: str, model_name: str, upload: Upload
) -> None:
    upload()
    here = checkpoints
    requests: list[tuple[str, str, bytes]] = [
        ("GET", "/nowhere", b""),
        ("DELETE", "/healthz", b""),
        ("GET", "/v1/models?cursor=%ff", b""),
        ("GET", "/v1/models?limit=99999999999999999999", b""),
        ("GET", "/v1/models/a/..", b""),
        ("GET", here + "/99999999999999999999999", b""),
        ("GET", here + "/epoch:-9223372036854775809", b""),
        ("GET", here + "/min:a%00b", b""),
        ("GET", here + "/min:%ED%A0%80", b""),
        ("GET", here + "/1?run=%00", b""),
        ("GET", here + "?order=metric.%00", b""),
        ("GET", here + "?tag.%00=1", b""),
        ("GET", here + "?epoch.ge=1e999", b""),
        ("GET", here + "?created_at.ge=never", b""),
        ("GET", here + "/1/tensors?cursor=-1", b""),
        ("GET", here + "/1/tensors?component=%00", b""),
        ("GET", here + "/1/state_dict?include=" + "a" * 5000, b""),
        ("GET", here + "/1/state_dict?include=re:(a{999}){999}", b""),
        ("GET", here + "/1/state_dict?rename=re:a=>\\9", b""),
        ("GET", here + "/1/state_dict?plan=%00", b""),
        ("GET", here + "/1/state_dict?component=%ED%A0%80", b""),
        ("PATCH", here + "/1", b"\xff"),
        ("PATCH", here + "/1", b"[" * 100_000),
        ("PATCH", here + "/1", b'{"metrics": {"a": 1e999, "b": []}}'),
        ("PATCH", here + "/1", b'{"tags": {"\\ud800": "x"}}'),
        ("POST", here + "/1/warmstart", b'{"target": {"a": {"shape": [1e30], "dtype": ""}}}'),
        ("POST", here + "/1/warmstart", b'{"target": 1}'),
        ("POST", here, b"PK\x03\x04" + b"\0" * 100),
        ("POST", here + "?epoch=99999999999999999999", b"x"),
        ("POST", here + "?tag.a=%00", b"x"),
        ("POST", here + "?run=%00", b"PK"),
        ("DELETE", here + "/99999999999999999999999", b""),
    ]
    for method, path, body in requests:
        answer = exactly(server, method, path, body)
        assert 400 <= answer.status_code < 500, (method, path, answer.text)
        problem(answer)
        told = (answer.text + str(answer.headers)).replace(model_name, "")
        assert not SECRETS.search(told), told
        assert str(server.data_dir) not in told
    assert "traceback" not in server.log


def test_a_catalog_that_is_gone_is_no_404_and_no_stack_trace(fresh_server: StartServer) -> None:
    server = fresh_server()
    with server.client() as http:
        assert until_ready(http)["status"] == "ready"
    for file in server.data_dir.glob("catalog*"):
        file.write_bytes(b"not a database" * 1000)
    with server.client() as http:
        ready = http.get("/readyz")
        assert problem(ready) == (503, "not-ready")
        answer = http.get("/v1/models/a/b")
        assert answer.status_code >= 500
        problem(answer)
        assert not SECRETS.search(ready.text + answer.text)
        assert http.get("/healthz").status_code == 200
