"""Saving large objects: in parts, straight from the tensors, and only storages that the server does not hold."""

import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from hypothesis import HealthCheck, given
from torch import nn

from stateroom import Client, DigestMismatch, Model, ModelNotFound, ServerUnavailable, StateroomWarning
from stateroom._upload.pickled import Pickled
from stateroom._upload.split import split_file
from tests.client.conftest import Answer, StartScripted, described, in_turn, problem
from tests.client.faults import faulty
from tests.client.trainings import MIB, noise, training
from tests.conftest import StartServer
from tests.differential.equality import equal
from tests.differential.objects import checkpoints
from tests.support.measure import examples, long, some
from tests.support.proxy import answered, body_half_sent, body_sent, proxy_to
from tests.support.server import Server
from tests.support.waiting import LONG_ENOUGH


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


@pytest.mark.filterwarnings("ignore")  # torch's own: of sparse, quantized and complex32 tensors
@examples(300, suppress_health_check=list(HealthCheck))
@given(checkpoints())
def test_the_file_that_is_sent_is_to_torch_the_one_that_it_would_have_written(obj: Any) -> None:
    written = io.BytesIO()
    torch.save(obj, written)
    pickled = Pickled(obj)
    split = pickled.split(pickled.memory())
    assert split.size <= pickled.largest_size(pickled.memory())
    sent = b"".join(split.read(0, split.size))
    expected = torch.load(io.BytesIO(written.getvalue()), weights_only=False)
    found = torch.load(io.BytesIO(sent), weights_only=False)
    assert equal(expected, found)


def test_what_torch_does_not_save_is_not_saved(model: Model) -> None:
    storage = torch.ones(4)
    with pytest.raises(RuntimeError, match="different types"):
        model.save({"a": storage, "b": storage.view(torch.int32)})


def test_a_training_is_saved_and_loaded_bit_for_bit(model: Model) -> None:
    obj = training()
    checkpoint = model.save(obj, metrics={"acc": 0.5}, tags={"by": "me"})
    assert (checkpoint.epoch, checkpoint.loss, checkpoint.metrics) == (3, 0.25, {"acc": 0.5})
    assert (checkpoint.digest, checkpoint.sha256) == (None, None)
    back = model.load(checkpoint)
    assert equal(back, obj)
    weights = back["model_state_dict"]
    assert weights["a.weight"].data_ptr() == weights["b.weight"].data_ptr()


def test_only_what_has_changed_is_stored(model: Model) -> None:
    obj = training()
    first = model.save(obj)
    again = model.save(obj)
    assert again.version == first.version + 1
    assert again.new_bytes < 64 * 1024
    obj["model_state_dict"]["a.bias"] += 1
    obj["model_state_dict"]["a.weight"] += 1
    changed = model.save(obj)
    assert 360_000 < changed.new_bytes < 360_000 + 64 * 1024
    assert equal(model.load(changed), obj)


def test_a_file_is_uploaded_in_parts_and_comes_back_byte_for_byte(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(training(), path)
    first = model.upload(path)
    assert first.digest is None
    assert model.upload(path).new_bytes == 0
    assert model.download(first, tmp_path / "back.pt").read_bytes() == path.read_bytes()


def test_what_is_small_goes_in_one_piece(model: Model, tmp_path: Path) -> None:
    checkpoint = model.save({"weight": torch.ones(3)})
    assert checkpoint.digest is not None
    assert model.download(checkpoint, tmp_path / "back.pt").stat().st_size == checkpoint.bytes


@pytest.mark.parametrize("cut", [body_half_sent, body_sent, answered], ids=lambda cut: cut.__name__)
def test_a_part_whose_connection_is_lost_is_sent_again(server: Server, model_name: str, cut: Any) -> None:
    obj = training(6)
    with proxy_to(server.port, lambda *_: False, cut, cut) as proxy, Client(proxy.url) as client:
        checkpoint = client.model(model_name).save(obj)
        assert proxy.lost == [cut]  # the first connection is for what is said, the next ones are for parts
        assert equal(client.model(model_name).load(checkpoint), obj)


def test_a_part_that_does_not_come_through_goes_in_shorter_ones(server: Server, model_name: str) -> None:
    """A proxy may end every connection after 30 seconds, and the network be slow."""
    obj = training(32)
    cuts = [lambda asked, _, limit=20 * MIB + i: len(asked) > limit for i in range(100)]
    with proxy_to(server.port, *cuts) as proxy, Client(proxy.url, connections=1) as client:
        checkpoint = client.model(model_name).save(obj)
        assert len(proxy.lost) > 3
        assert equal(client.model(model_name).load(checkpoint), obj)


def test_a_part_whose_connection_stalls_is_sent_again(server: Server, model_name: str) -> None:
    obj = training(6)
    over = threading.Event()

    def stalls(asked: bytearray, _: bytearray) -> bool:
        return len(asked) > MIB and over.wait(LONG_ENOUGH)

    with (
        proxy_to(server.port, lambda *_: False, stalls) as proxy,
        Client(proxy.url, timeout=1, retry_seconds=600) as client,
    ):
        checkpoint = client.model(model_name).save(obj)
        assert not over.is_set()
        over.set()
        assert equal(client.model(model_name).load(checkpoint), obj)


def test_a_tensor_that_is_written_to_while_it_is_saved_is_noticed(server: Server, model_name: str) -> None:
    obj = training(16)

    def write(_: str, done: int, total: int | None) -> None:
        if total is not None and done < total / 2:
            obj["model_state_dict"]["large"].add_(1)

    with Client(server.base_url, progress=write, retries=1) as client:
        model = client.model(model_name)
        with pytest.raises(DigestMismatch, match=r"changed while it was sent.*save_async"):
            model.save(obj)
        with pytest.raises(ModelNotFound):
            model.checkpoint("latest")


def test_a_server_that_is_killed_meanwhile_gets_the_rest_when_it_is_back(fresh_server: StartServer) -> None:
    server = fresh_server()
    obj = training(16)
    killed = threading.Event()

    def kill(_: str, done: int, total: int | None) -> None:
        if total is not None and done > total * 0.75 and not killed.is_set():
            killed.set()
            server.kill()

    one_by_one = Client(server.base_url, progress=kill, retries=0, connections=1)
    with one_by_one as client, pytest.raises(ServerUnavailable):
        client.model("a/b").save(obj)
    assert killed.is_set()
    server.restart()
    with Client(server.base_url, progress=False) as client:
        checkpoint = client.model("a/b").save(obj)
        assert equal(client.model("a/b").load(checkpoint), obj)
    received = sum(each["bytes_in"] for each in server.requests if "blocks" in each["route"])
    assert received < 0.75 * checkpoint.bytes


@long
@pytest.mark.parametrize("delay", some([0.0, 0.01, 0.03, 0.1], 2))
def test_a_server_that_is_killed_while_it_commits_has_it_once(fresh_server: StartServer, delay: float) -> None:
    """Or so: the commit is asked for when all has come, and whatever the server does then takes a while."""
    server = fresh_server()
    obj = training(8)
    all_sent = threading.Event()

    def watch(_: str, done: int, total: int | None) -> None:
        if total and done == total:
            all_sent.set()

    def kill() -> None:
        all_sent.wait(LONG_ENOUGH)
        time.sleep(delay)
        server.restart()

    killer = threading.Thread(target=kill)
    killer.start()
    with (
        faulty(lambda: server.port) as relay,
        Client(relay.url, progress=watch, retry_seconds=600) as client,
    ):
        checkpoint = client.model("a/b").save(obj, epoch=3)
        killer.join()
        assert [each.version for each in client.model("a/b").checkpoints()] == [checkpoint.version] == [1]
        assert equal(client.model("a/b").load("latest"), obj)


def test_threads_save_the_same_bytes_at_once(client: Client, model_name: str) -> None:
    obj = training()
    saved: list[Any] = []

    def save(number: int) -> None:
        saved.append(client.model(model_name).save(obj, epoch=number))

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.version for each in saved) == list(range(1, 9))
    assert sorted(each.epoch for each in saved) == list(range(8))
    assert sum(each.new_bytes for each in saved) < 1.2 * saved[0].bytes
    assert equal(client.model(model_name).load("latest"), obj)


def test_a_forked_process_saves_too(client: Client, model_name: str) -> None:
    model = client.model(model_name)
    model.save(training())
    child = os.fork()
    if not child:
        try:
            torch.set_num_threads(1)
            model.save({"epoch": 4, "weight": noise(2)})
        except BaseException:  # noqa: BLE001 - whatever it is, the parent has to hear of it
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert [each.epoch for each in model.checkpoints()] == [4, 3]


def test_code_in_the_object_is_warned_of_before_anything_is_sent(model: Model) -> None:
    with pytest.warns(StateroomWarning, match="whole module"):
        checkpoint = model.save(nn.Linear(1200, 1200))
    assert checkpoint.unsafe_globals


def test_a_server_that_takes_no_parts_gets_it_in_one_piece(
    scripted: StartScripted, caplog: pytest.LogCaptureFixture
) -> None:
    server = scripted(in_turn(problem(404, "no-such-route"), described()))
    with caplog.at_level("INFO", "stateroom"):
        Client(server.url, verify=False).model("a/b").save({"weight": noise(2)})
    assert "a/b is sent in one request" in caplog.text
    assert [request.path.split("?")[0] for request in server.seen] == ["/v1/uploads/a/b", "/v1/models/a/b/checkpoints"]
    assert torch.load(io.BytesIO(server.seen[1].body)).keys() == {"weight"}


def test_a_proxy_is_gone_through(monkeypatch: pytest.MonkeyPatch, scripted: StartScripted) -> None:
    announced = {"url": "/v1/uploads/a/b/x", "part_size": 64 * MIB, "missing": [[0, 1]], "missing_bytes": 1}
    ready = Answer(201, httpx.Response(201, json=announced).content, {"Content-Type": "application/json"})
    proxy = scripted(in_turn(ready, Answer(204), described()))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "")
    Client("http://stateroom.invalid", verify=False).model("a/b").save({"weight": noise(2)})
    assert [request.path for request in proxy.seen][1] == "http://stateroom.invalid/v1/uploads/a/b/x/blocks/0-1"


def test_what_has_no_storages_to_tell_is_no_split(tmp_path: Path) -> None:
    for number, data in enumerate((b"", b"PK\3\4", b"\x80\x02}.", os.urandom(5000), b"\xff" * 8 + b"{}")):
        path = tmp_path / str(number)
        path.write_bytes(data)
        with path.open("rb") as file:
            split = split_file(file)
            assert split is None or split.storages == []
