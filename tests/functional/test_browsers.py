"""A web page that the user opens is not a client: it neither writes to a server nor reads from it."""

import base64
import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.api.conftest import general, problem
from tests.conftest import StartServer
from tests.support.raw_http import answer_on, connected
from tests.support.routes import OPERATIONS, address
from tests.support.server import Server, start_server

EVIL = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
WRITES = [(method, path) for method, path in OPERATIONS if method != "GET"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {"STATEROOM_SERVER_TOKEN": "s3cret", "STATEROOM_DURABLE": "off"}
    server = start_server(tmp_path_factory.mktemp("guarded") / "data", env=env)
    yield server
    server.kill()


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_no_page_of_another_site_writes_to_a_server_without_tokens(http: httpx.Client, method: str, path: str) -> None:
    for page in (EVIL, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://localhost:3000"}):
        assert problem(http.request(method, address(path), headers=page)) == (403, "cross-site")
    made_up = {**EVIL, "Authorization": "Bearer anything"}
    assert problem(http.request(method, address(path), headers=made_up)) == (403, "cross-site")


@pytest.mark.parametrize(("method", "path"), [*OPERATIONS, ("OPTIONS", "/v1/models"), ("GET", "/nowhere")])
def test_a_server_without_tokens_has_no_name_that_dns_could_be_made_to_give_it(
    http: httpx.Client, method: str, path: str
) -> None:
    rebound = {"Host": "evil.example:8765", "Origin": "http://evil.example:8765", "Sec-Fetch-Site": "same-origin"}
    answer = http.request(method, address(path), headers=rebound)
    assert problem(answer) == (403, "unknown-host")
    assert answer.headers["X-Request-Id"]
    assert "STATEROOM_ALLOWED_HOSTS=evil.example" in answer.json()["detail"]


def test_a_refused_upload_of_a_page_leaves_nothing(http: httpx.Client, model_name: str) -> None:
    url = f"/v1/models/{model_name}/checkpoints"
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = http.post(url, content=general(), headers={**EVIL, "Content-Type": kind})
        assert problem(answer) == (403, "cross-site")
    answer = http.post(url, files={"file": general()}, headers=EVIL)
    assert problem(answer) == (403, "cross-site")
    assert http.get(url).status_code == 404


def test_what_the_user_does_and_what_clients_do_goes_on(http: httpx.Client, model_name: str) -> None:
    url = f"/v1/models/{model_name}/checkpoints"
    own = str(http.base_url).rstrip("/")
    for page in ({}, {"Sec-Fetch-Site": "none"}, {"Origin": own, "Sec-Fetch-Site": "same-origin"}):
        assert http.post(url, content=general(), headers=page).status_code == 201
    for host in ("localhost", "127.0.0.1:1", "[::1]:8765"):
        assert http.get(url, headers={"Host": host}).status_code == 200
    assert http.get(url, headers=EVIL).status_code == 200  # a page can send that, and not read what comes


def test_no_answer_can_be_read_or_run_by_another_site(http: httpx.Client) -> None:
    for path in ("/v1/models", "/nowhere", "/openapi.json", "/docs"):
        answer = http.get(path, headers=EVIL)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in answer.headers
    preflight = {**EVIL, "Access-Control-Request-Method": "PUT"}
    assert problem(http.options("/v1/models", headers=preflight)) == (405, "method-not-allowed")


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_browser_that_remembers_a_password_does_not_lend_it_to_a_page(
    guarded: Server, method: str, path: str
) -> None:
    basic = {"Authorization": "Basic " + base64.b64encode(b"me:s3cret").decode()}
    with guarded.client() as http:
        assert problem(http.request(method, address(path), headers={**EVIL, **basic})) == (403, "cross-site")
        assert problem(http.request(method, address(path), headers=EVIL)) == (403, "cross-site")
        bearer = http.request(method, address(path), headers={**EVIL, "Authorization": "Bearer s3cret"})
        assert bearer.status_code != 401
        assert bearer.json()["code"] != "cross-site"
        assert http.request(method, address(path), headers=basic).json()["code"] != "cross-site"


def test_a_server_with_tokens_answers_to_any_name(guarded: Server) -> None:
    with guarded.client() as http:
        headers = {"Host": "models.example", "Authorization": "Bearer s3cret"}
        assert http.get("/v1/models", headers=headers).status_code == 200
        assert http.get("/healthz", headers={"Host": "models.example"}).status_code == 200


def test_named_hosts_and_sites_are_let_in(fresh_server: StartServer) -> None:
    env = {"STATEROOM_ALLOWED_HOSTS": "Models.example, gpu:9000", "STATEROOM_ALLOWED_ORIGINS": "https://app.example"}
    server = fresh_server(env={**env, "STATEROOM_DURABLE": "off"})
    url = "/v1/models/a/b/checkpoints"
    page = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
    with server.client() as http:
        for host, status in (("models.example", 200), ("gpu:9000", 200), ("gpu:9001", 403), ("evil.example", 403)):
            assert http.get("/v1/models", headers={"Host": host}).status_code == status
        asked = {**page, "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "content-type"}
        preflight = http.options(url, headers=asked)
        assert preflight.status_code == 204
        assert preflight.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert "PATCH" in preflight.headers["Access-Control-Allow-Methods"]
        assert preflight.headers["Access-Control-Allow-Headers"] == "content-type"
        stored = http.post(url, content=general(), headers=page)
        assert stored.status_code == 201
        for answer in (stored, http.get(f"{url}/1/original", headers=page), http.get("/nowhere", headers=page)):
            assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
            assert {"ETag", "Content-Range", "Stateroom-Checkpoint"} <= set(
                answer.headers["Access-Control-Expose-Headers"].split(", ")
            )
            assert "Origin" in answer.headers["Vary"]
        other = http.get(f"{url}/1", headers=EVIL)
        assert "Access-Control-Allow-Origin" not in other.headers
        assert "Origin" in other.headers["Vary"]
        assert problem(http.post(url, content=general(), headers=EVIL)) == (403, "cross-site")


def test_beyond_loopback_addresses_and_its_own_name_will_do(fresh_server: StartServer) -> None:
    server = fresh_server("--host", "0.0.0.0", "--insecure", env={"STATEROOM_DURABLE": "off"})
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False, verify=False, timeout=60) as http:
        for host in ("10.1.2.3:8765", "[2001:db8::1]", socket.gethostname(), "localhost"):
            assert http.get("/v1/models", headers={"Host": host}).status_code == 200
        assert problem(http.get("/v1/models", headers={"Host": "evil.example"})) == (403, "unknown-host")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost:\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: me@localhost\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: local host\r\n", 400),
        (b"GET /nowhere HTTP/1.1\r\nHost: a, b\r\n", 400),
        (b"GET /healthz HTTP/1.0\r\n", 200),
        (b"GET /healthz HTTP/1.0\r\nHost: a\r\nHost: b\r\n", 400),
    ],
)
def test_a_request_has_one_host_and_a_valid_one(server: Server, guarded: Server, head: bytes, status: int) -> None:
    for one in (server, guarded):
        with connected(one) as connection:
            connection.sendall(head + b"\r\n")
            got, body = answer_on(connection)
        assert got == status
        assert status == 200 or json.loads(body)["code"] == "malformed-request"
