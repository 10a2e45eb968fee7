"""URLs for tools that know nothing of Stateroom."""

import copy
import dataclasses
import io
import pickle
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from stateroom import Checkpoint, Client, InvalidRequest, Model, NoKeysMatched, Unauthorized, UnsafeGlobals
from tests.conftest import StartServer
from tests.support.tokens import catalog_url, make_token

Fetch = Callable[[str], bytes]


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


@pytest.fixture
def saved(model: Model) -> Checkpoint:
    net = torch.nn.Linear(3, 2)
    return model.save({"epoch": 3, "model_state_dict": net.state_dict()})


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch) -> Fetch:
    monkeypatch.setenv("no_proxy", "*")

    def read(url: str) -> bytes:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.read()

    return read


def load(content: bytes) -> object:
    return torch.load(io.BytesIO(content), weights_only=True)


def test_a_url_downloads_what_the_method_of_that_name_would(
    model: Model, saved: Checkpoint, fetch: Fetch, tmp_path: Path
):
    state = load(fetch(saved.url(include="w*", rename={"w": "stem.w"}, add_prefix="module.", map_location="cpu")))
    assert list(state) == ["module.stem.weight"]
    whole = load(fetch(saved.url("file", map_location=torch.device("meta"))))
    assert whole["epoch"] == 3
    assert whole["model_state_dict"]["weight"].device.type == "meta"
    assert fetch(saved.url("original")) == model.download(saved, tmp_path / "x.pt").read_bytes()


def test_every_checkpoint_that_a_client_gives_makes_urls(model: Model, saved: Checkpoint) -> None:
    for each in (saved, model.checkpoint("latest"), next(model.checkpoints()), model.update(1, tags={"a": "b"})):
        assert each.url().startswith(f"{model._api.http.url}/v1/models/{model.name}/checkpoints/1/state_dict/")


def test_torch_hub_takes_it(saved: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    url = saved.url(map_location="cpu")
    state = torch.hub.load_state_dict_from_url(url, model_dir=str(tmp_path), progress=False)
    assert list(state) == ["weight", "bias"]
    assert [path.name for path in tmp_path.iterdir()] == [url.partition("?")[0].rpartition("/")[2]]


@pytest.mark.parametrize("name", ["net", "yolo-5.1", "a-b-c.d", "v-.x-9"])
def test_torch_hub_checks_the_hash_where_there_is_one(
    name: str, client: Client, model_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes ``-HEX.`` in a file's name for the beginning of its SHA-256, and refuses the file where it is not."""
    monkeypatch.setenv("no_proxy", "*")
    model = client.model(f"{model_name}-{name}"[-120:].replace("/", "-").replace("tests-", "tests/", 1))
    net = torch.nn.Linear(3, 2)
    checkpoint = model.save({"epoch": 3, "model_state_dict": net.state_dict()})
    sha256 = checkpoint.compute_sha256()
    urls = [checkpoint.url(what) for what in ("state_dict", "file", "original")]
    urls += [checkpoint.url(include="w*"), checkpoint.url("file", map_location="cpu")]
    for number, url in enumerate(urls):
        folder = str(tmp_path / str(number))
        found = torch.hub.load_state_dict_from_url(url, model_dir=folder, progress=False, check_hash=True)
        assert torch.equal(found.get("model_state_dict", found)["weight"], net.weight)
    assert f"-{sha256[:8]}.pt" in urls[2]


def test_a_checkpoint_that_only_an_unsafe_load_reads_has_a_url_when_asked_so(model: Model, fetch: Fetch) -> None:
    with pytest.warns(match="weights_only"):
        unsafe = model.save({"a": torch.ones(2), "b": timedelta(1)})
    url = unsafe.url("file", weights_only=False, map_location="cpu")
    assert torch.load(io.BytesIO(fetch(url)), weights_only=False)["b"] == timedelta(1)
    with pytest.raises(InvalidRequest, match="for 'file'"):
        unsafe.url(weights_only=False)


def test_what_cannot_be_downloaded_has_no_url(model: Model, saved: Checkpoint) -> None:
    with pytest.raises(NoKeysMatched):
        saved.url(include="nothing")
    with pytest.warns(match="weights_only"):
        unsafe = model.save({"a": torch.ones(2), "b": timedelta(1)})
    with pytest.raises(UnsafeGlobals):
        unsafe.url("file")


@pytest.mark.parametrize(
    ("what", "options", "said"),
    [
        ("file", {"include": "w*"}, "takes no selection"),
        ("original", {"component": "model_state_dict"}, "takes no selection"),
        ("original", {"map_location": "cpu"}, "url\\(\\) takes a device, and only for 'state_dict' and 'file'"),
        ("state_dict", {"map_location": {"cuda:0": "cpu"}}, "url\\(\\) takes a device"),
        ("tensors", {}, "'tensors' has no URL"),
        ("file", {"expires": 1.5}, "expires must be an integer"),
        ("file", {"expires": 10**6}, "expires"),
        ("file", {"expires": 0}, "expires"),
    ],
)
def test_what_makes_no_sense_is_refused(saved: Checkpoint, what, options, said) -> None:
    with pytest.raises(InvalidRequest, match=said):
        saved.url(what, **options)


def test_a_checkpoint_is_still_a_plain_value(saved: Checkpoint, model: Model) -> None:
    copies = [pickle.loads(pickle.dumps(saved)), copy.deepcopy(saved), dataclasses.replace(saved)]
    assert [each == saved for each in copies] == [True] * 3
    assert "_source" not in repr(saved)
    assert "_source" not in dataclasses.asdict(saved)
    for each in copies:
        with pytest.raises(InvalidRequest, match=r"get it from model\.checkpoint\(1\)"):
            each.url()


def test_it_takes_a_token_to_make_one_and_none_to_use_it(fresh_server: StartServer, fetch: Fetch) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    database = catalog_url(server)
    write = make_token(database, "write", "write", "vision")
    read = make_token(database, "read", "read", "vision")
    elsewhere = make_token(database, "elsewhere", "read", "audio")
    with Client(server.base_url, write) as client:
        client.model("vision/net").save({"w": torch.ones(3)})
    with Client(server.base_url, read) as client:
        checkpoint = client.model("vision/net").checkpoint("latest")
        assert torch.equal(load(fetch(checkpoint.url(expires=60)))["w"], torch.ones(3))
        with pytest.raises(Unauthorized, match="scope write"):
            client.model("vision/net").save({"w": torch.ones(3)})
    with Client(server.base_url, elsewhere) as client, pytest.raises(Unauthorized, match="only in the namespace audio"):
        client.model("vision/net").checkpoint("latest")
