"""The plugin that stands in for torch.load, run on a small suite of our own."""

from pathlib import Path

import pytest
import torch

from tests.conftest import StartServer
from tests.peers.__main__ import run_tests
from tests.peers.judging import Read, judge
from tests.peers.report import Tally, details, tally
from tests.peers.suites import Suite

SUITE = """
import io
import pathlib
import torch

def saved(obj):
    file = io.BytesIO()
    torch.save(obj, file)
    file.seek(0)
    return file

def test_of_a_file_in_memory():
    assert torch.equal(torch.load(saved({"w": torch.arange(3)}))["w"], torch.arange(3))

def test_of_a_path(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    assert list(torch.load(tmp_path / "a.pt", mmap=True)) == ["w"]

def test_without_a_tensor():
    assert torch.load(saved({"epoch": 3})) == {"epoch": 3}

READS = []

class Odd:
    def __init__(self):
        self.state = 0

    def __setstate__(self, state):
        READS.append(state)
        self.state = len(READS)

def test_of_what_is_another_each_time():
    torch.load(saved({"w": torch.ones(2), "odd": Odd()}), weights_only=False)
"""


def counted(server, folder: Path, ways: str) -> Tally:
    (folder / "test_theirs.py").write_text(SUITE)
    log = folder / "findings.jsonl"
    suite = Suite("theirs", lambda cache: cache, "", ("test_theirs.py",))
    run_tests(suite, folder, folder / "none", ways, server, log)
    return tally(log, [request["status"] for request in server.requests])


@pytest.fixture
def whole(fresh_server: StartServer, tmp_path: Path) -> Tally:
    return counted(fresh_server(), tmp_path, "original,file,state_dict,safetensors,client")


def test_every_read_is_counted_as_what_it_is(whole: Tally) -> None:
    assert whole.tests == {"passed": 4}
    assert whole.outcomes["equal"] >= 10
    assert whole.outcomes["refused"] == 1
    assert whole.outcomes["unjudged"] >= 1
    assert whole.outcomes["different"] == 0
    assert not whole.wrong
    assert whole.requests > 10
    assert any("refused, upload" in line for line in details(whole))


@pytest.mark.parametrize(
    ("served", "again", "outcome"),
    [
        (Read({"w": torch.ones(2)}), {"w": torch.ones(2)}, "equal"),
        (Read({"w": torch.zeros(2)}), {"w": torch.ones(2)}, "different"),
        (Read(error=ValueError("no")), {"w": torch.ones(2)}, "different"),
        (Read({"w": torch.zeros(2)}), {"w": torch.zeros(2)}, "unjudged"),
    ],
)
def test_only_what_stock_torch_reads_twice_alike_can_differ(served: Read, again: object, outcome: str) -> None:
    assert judge("file", Read({"w": torch.ones(2)}), served, lambda: again).outcome == outcome


def test_a_difference_is_wrong_and_named(tmp_path: Path) -> None:
    log = tmp_path / "findings.jsonl"
    log.write_text(
        '{"test": "a", "way": "file", "outcome": "different", "why": "w: Tensor, and dict"}\n'
        '{"test": "a", "passed": "failed"}\n'
    )
    count = tally(log, [200, 200])
    assert count.wrong
    assert details(count) == ["       1 different, file: w: Tensor, and dict", "         in a"]


def test_an_answer_that_is_the_servers_fault_is_wrong(tmp_path: Path) -> None:
    assert tally(tmp_path / "none.jsonl", [200, 503]).wrong
    assert not tally(tmp_path / "none.jsonl", [200, 404]).wrong
