"""Background saves: the values at the call are stored, and no save is lost silently."""

import concurrent.futures
import os
import subprocess
import threading
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from queue import Queue
from typing import Any

import pytest
import torch
from torch import nn

from stateroom import (
    Client,
    InvalidRequest,
    Model,
    ModelNotFound,
    SaveJob,
    ServerUnavailable,
    ShardedTensor,
    StateroomWarning,
    Superseded,
)
from stateroom._upload.pickled import Pickled
from stateroom._upload.snapshot import Buffers, size_of, snapshot
from tests.client.conftest import Answer, StartScripted, described, problem
from tests.client.trainings import few_threads, noise, training
from tests.differential.judge import equal
from tests.support.measure import long, measure
from tests.support.scripts import run_script
from tests.support.server import Server
from tests.support.waiting import LONG_ENOUGH

__all__ = ["few_threads"]

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


class Gate:
    """A server that takes uploads in one piece, and each only when it is let in."""

    def __init__(self, scripted: StartScripted, *, refused: int = 0) -> None:
        self.arrived = threading.Semaphore(0)
        self._open = threading.Semaphore(0)
        self._refused = refused
        self.url = scripted(self._answer).url

    def let_in(self, count: int = 1) -> None:
        for _ in range(count):
            self._open.release()

    def _answer(self, _: Any) -> Answer:
        self.arrived.release()
        assert self._open.acquire(timeout=LONG_ENOUGH)
        if self._refused:
            self._refused -= 1
            return problem(422, "no-tensors")
        return described()


def in_thread(call: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_what_is_stored_is_what_was_there_at_the_call(model: Model) -> None:
    for size in (0.001, 2, 6):
        obj = training(size)
        expected = deepcopy(obj)
        job = model.save_async(obj, epoch=7, metrics={"acc": 0.5}, tags={"by": "me"})
        for tensor in tensors(obj):
            tensor.zero_()
        obj["epoch"] = 100
        obj.clear()
        checkpoint = job.result()
        assert job.done()
        assert checkpoint is not None
        assert (checkpoint.epoch, checkpoint.loss, checkpoint.metrics) == (7, 0.25, {"acc": 0.5})
        back = model.load(checkpoint)
        assert equal(back, expected)
        weights = back["model_state_dict"]
        assert weights["a.weight"].data_ptr() == weights["b.weight"].data_ptr()


def test_what_is_small_is_a_snapshot_too(model: Model) -> None:
    weight = torch.ones(3)
    obj = {"weight": weight, "half": weight[1:], "none": torch.ones(0)}
    expected = deepcopy(obj)
    job = model.save_async(obj)
    weight.zero_()
    back = model.load(job.result())
    assert equal(back, expected)
    assert back["half"].data_ptr() == back["weight"][1:].data_ptr()


@long
def test_every_one_of_many_saves_is_stored_as_it_was(model: Model) -> None:
    weight = noise(2)
    sums = []
    jobs = []
    saves = measure(4, 8)
    for step in range(saves):
        weight += 1
        sums.append(weight.double().sum())
        jobs.append(model.save_async({"weight": weight, "step": step}))
    weight.zero_()
    checkpoints = [job.result() for job in jobs]
    assert [each.step for each in checkpoints if each is not None] == list(range(saves))
    assert [model.load(each)["weight"].double().sum() for each in checkpoints] == sums


def test_the_memory_of_a_snapshot_is_used_again() -> None:
    buffers, obj = Buffers(), {"weight": torch.ones(1000), "bias": torch.ones(3)}
    addresses = set()
    for each in (obj, obj, {"weight": torch.ones(1001)}, {"weight": torch.ones(2)}):
        pickled = Pickled(each)
        buffer = buffers.take(torch, size_of(pickled), pinned=False)
        copies = snapshot(pickled, buffer)
        assert bytes(copies[0]) == bytes(each["weight"].numpy().data.cast("B"))
        addresses.add(buffer.tensor.data_ptr())
        buffers.give(buffer)
    assert len(addresses) == 1
    larger = buffers.take(torch, 100_000, pinned=False)
    buffers.give(larger)
    assert buffers.take(torch, 1, pinned=False) is larger


def test_no_more_than_two_snapshots_are_ever_in_memory(scripted: StartScripted) -> None:
    gate = Gate(scripted)
    with Client(gate.url, verify=False) as client:
        model = client.model("a/b")
        jobs = [model.save_async({"weight": torch.ones(1)}) for _ in range(2)]
        assert gate.arrived.acquire(timeout=LONG_ENOUGH)
        third = in_thread(lambda: jobs.append(model.save_async({"weight": torch.ones(1)})))
        third.join(0.1)
        assert third.is_alive()
        assert not any(job.done() for job in jobs)
        gate.let_in()
        third.join()
        assert jobs[0].done()
        gate.let_in(2)
    assert all(job.done() for job in jobs)


def test_a_newer_save_takes_the_place_of_a_droppable_one_that_waits(scripted: StartScripted) -> None:
    gate = Gate(scripted)
    with Client(gate.url, verify=False) as client:
        model = client.model("a/b")
        begun = model.save_async({"weight": torch.ones(1)}, droppable=True)
        assert gate.arrived.acquire(timeout=LONG_ENOUGH)
        waiting = [model.save_async({"weight": torch.ones(1)}, droppable=True) for _ in range(3)]
        newest = model.save_async({"weight": torch.ones(1)})
        assert [job.done() for job in (begun, *waiting, newest)] == [False, True, True, True, False]
        gate.let_in(2)
        assert begun.result() is not None
        assert newest.result() is not None
        for job in waiting:
            with pytest.raises(Superseded, match="newer save of a/b"):
                job.result()


def test_a_save_of_another_run_takes_nobodys_place(scripted: StartScripted) -> None:
    gate = Gate(scripted)
    with Client(gate.url, verify=False) as client:
        client.model("a/b", run="x").save_async({"weight": torch.ones(1)})
        assert gate.arrived.acquire(timeout=LONG_ENOUGH)
        waiting = client.model("a/b", run="x").save_async({"weight": torch.ones(1)}, droppable=True)
        third = in_thread(lambda: client.model("a/b", run="y").save_async({"weight": torch.ones(1)}))
        third.join(0.1)
        assert third.is_alive()
        gate.let_in(3)
        third.join()
        assert waiting.result() is not None


def test_a_failure_is_warned_of_at_the_next_save_and_when_the_client_is_closed(scripted: StartScripted) -> None:
    gate = Gate(scripted, refused=2)
    gate.let_in(3)
    client = Client(gate.url, verify=False)
    model = client.model("a/b")
    wait_for(model.save_async({"weight": torch.ones(1)}))
    with pytest.warns(StateroomWarning, match="background save of a/b failed: this is no-tensors") as warned:
        wait_for(model.save_async({"weight": torch.ones(1)}))
    assert warned[0].filename == __file__
    with pytest.warns(StateroomWarning, match="background save of a/b failed") as warned:
        client.close()
    assert warned[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.save_async({"weight": torch.ones(1)}).result() is not None
        client.close()


def test_a_failure_is_raised_where_that_was_asked_for(scripted: StartScripted) -> None:
    gate = Gate(scripted, refused=2)
    gate.let_in(2)
    client = Client(gate.url, verify=False)
    model = client.model("a/b")
    wait_for(model.save_async({"weight": torch.ones(1)}, raise_errors=True))
    with pytest.raises(Exception, match="no-tensors"):
        model.save_async({"weight": torch.ones(1)})
    model.save_async({"weight": torch.ones(1)}, raise_errors=True)
    with pytest.raises(Exception, match="no-tensors"):
        client.close()
    client.close()


def test_what_result_has_raised_is_not_told_again() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Client(NOBODY, retries=0) as client:
            job = client.model("a/b").save_async({"weight": noise(2)}, raise_errors=True)
            for _ in range(2):
                with pytest.raises(ServerUnavailable):
                    job.result()


def test_an_error_in_the_with_block_is_not_hidden_by_that_of_a_save() -> None:
    def save_and_fail() -> None:
        with Client(NOBODY, retries=0) as client:
            client.model("a/b").save_async({"weight": torch.ones(1)}, raise_errors=True)
            raise ZeroDivisionError

    with pytest.warns(StateroomWarning, match="failed"), pytest.raises(ZeroDivisionError):
        save_and_fail()


def test_what_cannot_be_saved_is_refused_at_once_and_takes_no_place(model: Model) -> None:
    class DTensor(torch.Tensor):
        __module__ = "torch.distributed.tensor"

    storage = torch.ones(4)
    for _ in range(3):
        with pytest.raises(ShardedTensor):
            model.save_async({"a": DTensor()})
        with pytest.raises(RuntimeError, match="different types"):
            model.save_async({"a": storage, "b": storage.view(torch.int32)})
    assert model.save_async({"a": storage}).result() is not None


def test_code_in_the_object_is_warned_of_at_once(model: Model) -> None:
    with pytest.warns(StateroomWarning, match="whole module") as warned:
        job = model.save_async(nn.Linear(2, 2))
    assert warned[0].filename == __file__
    checkpoint = job.result()
    assert checkpoint is not None
    assert checkpoint.unsafe_globals


def test_other_ranks_save_nothing(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    monkeypatch.setenv("RANK", "1")
    job = model.save_async({"weight": torch.ones(1)})
    assert job.done()
    assert job.result() is None
    with pytest.raises(ModelNotFound):
        model.checkpoint("latest")
    assert model.save_async({"weight": torch.ones(1)}, rank_zero_only=False).result() is not None


def test_a_result_is_waited_for_no_longer_than_asked(scripted: StartScripted) -> None:
    gate = Gate(scripted)
    with Client(gate.url, verify=False) as client:
        job = client.model("a/b").save_async({"weight": torch.ones(1)})
        with pytest.raises(TimeoutError):
            job.result(timeout=0.01)
        gate.let_in()
        assert job.result(timeout=LONG_ENOUGH) is not None


def test_a_job_is_a_future(client: Client, model_name: str) -> None:
    model = client.model(model_name)
    jobs = [model.save_async({"weight": torch.full((3,), float(number))}) for number in range(3)]
    heard: Queue[object] = Queue()
    jobs[2].add_done_callback(heard.put)
    assert not jobs[0].cancel()
    done, waiting = concurrent.futures.wait(jobs, timeout=LONG_ENOUGH)
    assert (done, waiting) == (set(jobs), set())
    assert [job.exception() for job in jobs] == [None] * 3
    stored = [job.result() for job in concurrent.futures.as_completed(jobs)]
    assert {checkpoint and checkpoint.version for checkpoint in stored} == {1, 2, 3}
    assert heard.get(timeout=LONG_ENOUGH) is jobs[2]


def test_threads_save_at_once(client: Client, model_name: str) -> None:
    jobs: list[SaveJob] = []

    def save(number: int) -> None:
        weight = torch.full((300, 300), float(number))
        jobs.append(client.model(model_name).save_async({"epoch": number, "weight": weight}))
        weight.zero_()

    threads = [in_thread(lambda number=number: save(number)) for number in range(8)]  # type: ignore[misc]
    for thread in threads:
        thread.join()
    for checkpoint in [job.result() for job in jobs]:
        assert checkpoint is not None
        assert torch.all(client.model(model_name).load(checkpoint)["weight"] == checkpoint.epoch)
    assert sorted(each.epoch or 0 for each in client.model(model_name).checkpoints()) == list(range(8))


def test_a_forked_process_begins_with_no_saves(scripted: StartScripted) -> None:
    gate = Gate(scripted)
    with Client(gate.url, verify=False) as client:
        model = client.model("a/b")
        model.save_async({"weight": torch.ones(1)})
        assert gate.arrived.acquire(timeout=LONG_ENOUGH)
        parents = model.save_async({"weight": torch.ones(1)})
        child = os.fork()
        if not child:
            try:
                torch.set_num_threads(1)
                with pytest.raises(InvalidRequest, match="forked"):
                    parents.result()
                jobs = [model.save_async({"weight": torch.ones(1)}) for _ in range(2)]
                client.close()
                assert all(job.result() is not None for job in jobs)
            except BaseException:  # noqa: BLE001 - whatever it is, the parent has to hear of it
                os._exit(1)
            os._exit(0)
        gate.let_in(4)
        assert os.waitpid(child, 0)[1] == 0
        assert parents.result() is not None


SCRIPT = """
import atexit, sys, threading, torch
from stateroom import Client
model = Client(sys.argv[1], retries=1).model(sys.argv[2])
"""


def run(script: str, url: str, name: str) -> "subprocess.CompletedProcess[str]":
    return run_script(SCRIPT + script, url, name)


def test_a_script_that_ends_has_saved_before(server: Server, model: Model) -> None:
    script = """
for epoch in range(2):
    model.save_async({"epoch": epoch, "weight": torch.randn(4_000_000)})
"""
    done = run(script, server.base_url, model.name)
    assert (done.returncode, done.stderr) == (0, "")
    assert [each.epoch for each in model.checkpoints()] == [1, 0]


def test_so_has_one_that_fails(server: Server, model: Model) -> None:
    done = run("model.save_async({'weight': torch.randn(4_000_000)})\n1 / 0", server.base_url, model.name)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")
    assert model.checkpoint("latest").version == 1


def test_so_has_one_that_saves_as_it_ends(server: Server, model: Model) -> None:
    script = """
def save(epoch):
    model.save_async({"epoch": epoch, "weight": torch.randn(4_000_000)})

def later():
    threading.main_thread().join()
    save(0)

atexit.register(save, 1)
threading.Thread(target=later).start()
"""
    done = run(script, server.base_url, model.name)
    assert (done.returncode, done.stderr) == (0, "")
    assert [each.epoch for each in model.checkpoints()] == [1, 0]


def test_without_a_server_a_script_ends_and_says_what_was_not_saved() -> None:
    done = run("model.save_async({'weight': torch.randn(4_000_000)})", NOBODY, "a/b")
    assert done.returncode == 0
    assert "StateroomWarning: a background save of a/b failed: no Stateroom server responds" in done.stderr


def tensors(obj: Any) -> list[torch.Tensor]:
    held = obj.values() if isinstance(obj, dict) else obj if isinstance(obj, (list, tuple)) else ()
    inner = [tensor for each in held for tensor in tensors(each)]
    return [*inner, obj.detach()] if isinstance(obj, torch.Tensor) else inner


def wait_for(job: SaveJob) -> None:
    while not job.done():
        time.sleep(0.01)
