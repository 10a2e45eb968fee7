"""Damage on a server's disk, as its clients see it: an error, then a new upload of the bytes, then no more errors."""

from pathlib import Path

import pytest
import torch

from stateroom import Client, ServerError
from tests.api.conftest import load, problem, saved
from tests.conftest import StartServer
from tests.functional.torch_files import same
from tests.support.negotiating import InParts, missing
from tests.support.server import Server

STATE = {"large": torch.randn(500_000), "small": torch.randn(3000)}


def start(fresh_server: StartServer) -> Server:
    return fresh_server(env={"STATEROOM_DURABLE": "off"})


def damage(server: Server, tensor: torch.Tensor) -> None:
    """Flip a bit of the first value of ``tensor`` wherever it is stored."""
    needle, hits = tensor.numpy().tobytes()[:64], 0
    for pack in filter(Path.is_file, Path(server.data_dir / "packs").rglob("*")):
        data = pack.read_bytes()
        if (at := data.find(needle)) >= 0:
            pack.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            hits += 1
    assert hits == 1


DOWNLOADS = ["/file", "/original", "/state_dict", "/state_dict?format=safetensors", "/state_dict?dtype=float16"]


def test_what_a_download_finds_damaged_the_next_upload_is_asked_to_send(fresh_server: StartServer) -> None:
    server, file = start(fresh_server), InParts(saved(STATE))
    with server.client() as http:
        url = file.upload(http, "a/b")["urls"]["self"]
        for path in DOWNLOADS:
            whole = http.get(url + path).content
            assert missing(file.announce(http, "a/b")) == [0]
            damage(server, STATE["small"])
            for _ in range(2):
                assert problem(http.get(url + path)) == (500, "damaged-blob")
            if path == DOWNLOADS[0]:
                assert "stateroom_damaged_blobs 1.0" in http.get("/metrics").text
            assert missing(file.announce(http, "a/b")) == [0, 2]
            file.upload(http, "a/b")
            assert http.get(url + path).content == whole


def test_a_client_that_verifies_hears_of_damage_and_saving_the_same_object_again_heals_it(
    fresh_server: StartServer,
) -> None:
    server = start(fresh_server)
    with Client(server.base_url, retries=1) as client:
        model = client.model("a/b")
        model.save(STATE)
        damage(server, STATE["large"])
        with pytest.raises(ServerError) as failed:
            model.state_dict(1)
        assert failed.value.code == "damaged-blob"
        model.save(STATE)
        assert same(dict(model.state_dict(1)), STATE)
        assert same(dict(model.state_dict(2)), STATE)


def test_a_commit_that_needs_what_is_damaged_has_it_sent(fresh_server: StartServer) -> None:
    server, losses = start(fresh_server), torch.arange(5000.0)
    with server.client() as http:
        InParts(saved({"epoch": 1, "loss": losses[7], "w": STATE["large"]})).upload(http, "a/b")
        damage(server, losses)
        file = InParts(saved({"epoch": 2, "loss": losses[9], "w": STATE["large"]}))
        upload = file.announce(http, "a/b")
        assert missing(upload) == [0]
        file.send(http, upload)
        assert problem(http.post(f"{upload['url']}/commit")) == (409, "missing-blobs")
        again = file.announce(http, "a/b")
        assert len(missing(again)) == 1
        checkpoint = file.upload(http, "a/b")
        assert checkpoint["loss"] == 9.0
        assert http.get(f"{checkpoint['urls']['self']}/original").content == file.data
        assert load(http.get("/v1/models/a/b/checkpoints/1/file").content)["loss"] == 7.0
