"""A client trusts a server with the token for that server, and with nothing else."""

import base64
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stateroom import Client, InvalidRequest, StateroomError, UnexpectedAnswer
from stateroom._http.address import address_of, hidden, path_of
from tests.client.conftest import Answer, ScriptedServer, Seen, StartScripted, described, in_turn
from tests.support.server import Server, start_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for this module, on SQLite: the database makes no difference to what a client believes."""
    running = start_server(tmp_path_factory.mktemp("one") / "data", env={"STATEROOM_DURABLE": "off"})
    yield running
    running.kill()


BASE = "http://127.0.0.1:8765"
ELSEWHERE = [
    "@evil.example/v1",
    ":80@evil.example/",
    ".evil.example/",
    "//evil.example/v1",
    "/\\evil.example/",
    "\\\\evil.example/",
    "http://evil.example/",
    "https://127.0.0.1:8765/v1",
    "http://127.0.0.1:8766/v1",
    "http://127.0.0.1:8765@evil.example/",
    "http://127.0.0.1:8765.evil.example/",
    "http://user@127.0.0.1:8765/v1",
    "/v1/../../admin",
    "/v1/./models",
    "/v1/%2e%2e/%2E./admin",
    "/v1/%252e%252e/admin",
    "/v1/..%2fadmin",
    "/v1/..%5cadmin",
    "/v1//models",
    "/%2f%2fevil.example",
    "/v1/a%0d%0aHost: b",
    "/v1/\r\nHost: evil.example",
    "/v1/\x00",
    "/v1/a b",
    "/v1/\u2100",
    "/v1#there",
    "v1/models",
    "?a=b",
    "",
    None,
    7,
    ["/v1"],
]


@pytest.mark.parametrize("said", ELSEWHERE, ids=repr)
def test_an_address_that_is_not_the_servers_own_is_refused(said: object) -> None:
    with pytest.raises(UnexpectedAnswer, match="sent a URL of another server"):
        path_of(said, BASE)


@pytest.mark.parametrize(
    "said", ["/v1/models/a/b/checkpoints/1/file", "/v1/a?include=layer.%2A&x=//y/..", "/v1/a/min:val%20loss%2Fb"]
)
def test_a_path_of_the_servers_own_is_followed_as_a_path_or_as_a_whole_url(said: str) -> None:
    for base in (BASE, f"{BASE}/below"):
        assert path_of(said, base) == path_of(base + said, base) == said


@given(st.text() | st.text("/\\.@:%25eEfF2#?\r\n a", max_size=12).map(lambda text: "/" + text))
def test_whatever_is_followed_stays_with_the_server(said: str) -> None:
    base = f"{BASE}/below"
    try:
        path = path_of(said, base)
    except UnexpectedAnswer:
        return
    url = httpx.URL(base + path)
    assert (url.scheme, url.host, url.port, url.userinfo) == ("http", "127.0.0.1", 8765, b"")
    assert url.path.startswith("/below/")


def lying(scripted: StartScripted, server: Server, lie: Callable[[str, Any], Any]) -> ScriptedServer:
    """A server that answers as the real one does, but for what ``lie(path, answer)`` makes of its JSON."""

    def script(request: Seen) -> Answer:
        names = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        with server.client() as http:
            answer = http.request(request.method, request.path, headers=names, content=request.body)
        body = answer.content
        if "json" in answer.headers.get("Content-Type", ""):
            body = json.dumps(lie(request.path, answer.json())).encode()
        headers = {name: value for name, value in answer.headers.items() if name not in {"content-length", "date"}}
        return Answer(answer.status_code, body, headers)

    return scripted(script)


def with_url(said: str) -> Callable[[str, Any], Any]:
    def lie(path: str, answer: Any) -> Any:
        return {name: said if name in {"url", "download"} else value for name, value in answer.items()}

    return lie


@pytest.mark.parametrize("said", ["@{host}/v1", "//{host}/v1", "http://{host}/v1"])
def test_no_answer_sends_a_request_or_a_token_to_another_host(
    said: str, scripted: StartScripted, server: Server, model_name: str, tmp_path: Path
) -> None:
    state = {"weight": torch.ones(2000, 2000)}
    with Client(server.base_url) as client:
        client.model(model_name).save(state)
    evil = scripted(in_turn(described()))
    liar = lying(scripted, server, with_url(said.format(host=evil.url.removeprefix("http://"))))
    net = torch.nn.Linear(2000, 2000)
    with Client(liar.url, "secret", retries=0) as client:
        model = client.model(model_name)
        for call in (
            lambda: model.state_dict("latest"),
            lambda: model.load("latest"),
            lambda: model.warmstart(net, "latest"),
            lambda: model.load_into(net, "latest", strict=False),
            lambda: model.checkpoint("latest").url(),
            lambda: model.save({"weight": torch.zeros(2000, 2000)}),
        ):
            with pytest.raises(UnexpectedAnswer, match="a URL of another server"):
                call()
    assert evil.seen == []
    assert {request.headers["Authorization"] for request in liar.seen} == {"Bearer secret"}


@pytest.mark.parametrize("through_proxy", [False, True])
def test_a_redirect_is_not_followed_wherever_a_body_is_fetched(
    through_proxy: bool, scripted: StartScripted, server: Server, model_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(server.base_url) as client:
        client.model(model_name).save({"weight": torch.ones(2000, 1000)})
    evil = scripted(in_turn(described()))

    def script(request: Seen) -> Answer:
        if "Range" in request.headers:
            return Answer(307, headers={"Location": f"{evil.url}/v1/models"})
        with server.client() as http:
            answer = http.request(request.method, request.path)
        return Answer(answer.status_code, answer.content, {"Content-Type": answer.headers["Content-Type"]})

    redirecting = scripted(script)
    if through_proxy:
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("HTTP_PROXY", redirecting.url)
    with Client(redirecting.url, "secret", retries=0) as client, pytest.raises(StateroomError, match="redirects to"):
        client.model(model_name).state_dict("latest")
    assert evil.seen == []


INDEX_LIES: dict[str, Callable[[Any], Any]] = {
    "a size beyond all disks": lambda index: index | {"size": 10**18},
    "a size below nothing": lambda index: index | {"size": -1},
    "a size that is no number": lambda index: index | {"size": "1"},
    "a pickle beyond the file": lambda index: index | {"pickle": {**index["pickle"], "end": 10**12, "blocks": []}},
    "a pickle beyond memory": lambda index: (
        index | {"size": 2**49, "pickle": {"start": 0, "end": 2**48, "digest": None, "blocks": []}}
    ),
    "storages across each other": lambda index: index | {"storages": index["storages"][:1] * 2},
    "a storage before the file": lambda index: (
        index | {"storages": [{**index["storages"][0], "start": -64, "end": 0, "blocks": []}]}
    ),
    "no storages": lambda index: {name: value for name, value in index.items() if name != "storages"},
    "storages that are none": lambda index: index | {"storages": [None]},
    "digests that are none": lambda index: index | {"storages": [{**index["storages"][0], "blocks": ["xyz"]}]},
    "an etag that ends a header": lambda index: index | {"etag": 'a"\r\nX-Evil: 1'},
}


@pytest.mark.parametrize("lie", INDEX_LIES)
def test_an_index_that_makes_no_sense_is_refused_before_any_memory_is_asked_for(
    lie: str, scripted: StartScripted, server: Server, model_name: str
) -> None:
    with Client(server.base_url) as client:
        client.model(model_name).save({"weight": torch.ones(2000, 1000)})
    liar = lying(scripted, server, lambda path, answer: INDEX_LIES[lie](answer) if "/index" in path else answer)
    with Client(liar.url, retries=0) as client, pytest.raises(UnexpectedAnswer):
        client.model(model_name).state_dict("latest")


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "1/../../x"},
        {"version": None},
        {"model": 3},
        {"components": [7]},
        {"created_at": "now"},
        {"bytes": "x"},
    ],
    ids=str,
)
def test_a_description_that_makes_no_sense_is_an_error_and_names_no_file(
    fields: dict[str, object], scripted: StartScripted, tmp_path: Path
) -> None:
    model = Client(scripted(in_turn(described(**fields))).url).model("a/b")
    with pytest.raises(UnexpectedAnswer, match="not a checkpoint that this client can read"):
        model.download("latest", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("body", [b"[]", b"7", b"null", b'{"items": 3, "next": null}', b"[" * 100_000])
def test_a_listing_that_is_none_is_an_error(body: bytes, scripted: StartScripted) -> None:
    server = scripted(in_turn(Answer(body=body, headers={"Content-Type": "application/json"})))
    with pytest.raises(UnexpectedAnswer):
        list(Client(server.url).models())


def test_a_listing_that_never_ends_is_ended(scripted: StartScripted) -> None:
    page = Answer(body=b'{"items": [], "next": "again"}', headers={"Content-Type": "application/json"})
    with pytest.raises(UnexpectedAnswer, match="never ends"):
        list(Client(scripted(in_turn(page)).url).models())


# A password in the URL


def test_a_password_in_the_url_is_sent_as_basic_and_shown_nowhere(
    scripted: StartScripted, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = scripted(in_turn(described(), Answer(500), Answer(302, headers={"Location": "/x"}), Answer(body=b"{")))
    host = server.url.removeprefix("http://")
    client = Client(f"http://someone:s3cr%40t@{host}", retries=0)
    model = client.model("a/b")
    shown = [repr(client), client.url, str(vars(client)), repr(model), repr(model.checkpoint("latest"))]
    for _ in range(3):
        with pytest.raises(StateroomError) as caught:
            model.checkpoint("latest")
        shown += ["".join(traceback.format_exception(caught.value)), repr(caught.value)]
    expected = "Basic " + base64.b64encode(b"someone:s3cr@t").decode()
    assert {request.headers["Authorization"] for request in server.seen} == {expected}
    assert client.url == server.url
    assert [text for text in [*shown, caplog.text] if "s3cr" in text or "someone" in text] == []


def test_a_server_takes_a_token_as_the_password_in_the_url_however_much_is_sent(
    token_server: tuple[Server, str], tmp_path: Path
) -> None:
    server, token = token_server
    url = server.base_url.replace("http://", f"http://any:{token}@")
    with Client(url) as client:
        model = client.model("a/b")
        checkpoint = model.save({"weight": torch.ones(2000, 2000)})
        assert model.state_dict("latest")["weight"].sum() == 4_000_000
        assert model.download("latest", tmp_path, "cpu").exists()
        assert token not in checkpoint.url()


@pytest.fixture
def token_server(fresh_server: Callable[..., Server]) -> tuple[Server, str]:
    return fresh_server(env={"STATEROOM_SERVER_TOKEN": "t0k3n-t0k3n", "STATEROOM_DURABLE": "off"}), "t0k3n-t0k3n"


def test_a_token_goes_before_the_password_in_the_url() -> None:
    assert address_of("http://a:b@host/below/", "t").authorization == "Bearer t"
    assert address_of("http://a:b@host/below/", "t").url == "http://host/below"
    assert "Basic" not in repr(address_of("http://a:b@host", None))


@pytest.mark.parametrize(
    "url",
    [
        "http://u:s3cr@t@ho st",
        "http://u:s3cr/et@host",
        "http://u:1/s3cr@host",
        "u:s3cr@host",
        "ftp://u:s3cr@host",
        "http://u:s3cr@host/?a=b",
        "http://u:s3cr@",
        "http://u:s3cr@[",
        "http://u:s3cr#@host",
        "http://u:s3cr@host\\x",
    ],
)
def test_a_url_that_is_refused_does_not_show_its_password(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Client(url)
    assert "s3cr" not in "".join(traceback.format_exception(caught.value)).replace(url, "")
    assert "s3cr" not in str(caught.value)


@given(st.text(min_size=1))
def test_no_password_is_left_in_a_url_that_is_shown(password: str) -> None:
    assert hidden(f"http://u:{password}@host/x") == "http://***@host/x"


def test_a_token_that_no_header_can_carry_is_refused_without_showing_it() -> None:
    with pytest.raises(InvalidRequest) as caught:
        Client(BASE, "s3cret\n")
    assert "s3cret" not in str(caught.value)
