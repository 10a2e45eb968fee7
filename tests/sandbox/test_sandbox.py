"""A child process: its results, and its failures."""

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from app.errors import Cancelled, HostileCheckpoint, NotACheckpoint, SelectionError, StateroomError
from app.formats.index import index
from app.sandbox import index_file as indexing
from app.sandbox import run, wire
from app.sandbox.index_file import index_file, index_in_child
from app.values.work import Work
from tests.hostile.corpus.base import zipped
from tests.hostile.make import integer, text
from tests.sandbox.functions import crash, never_ends, too_much_memory, too_much_time
from tests.support.waiting import assert_soon


def save(obj: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    return buffer.getvalue()


def test_a_child_finds_what_this_process_would_find(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(save({"epoch": 3, "loss": float("nan"), "model": {"w": torch.zeros(3, 4), "ü": torch.zeros(0)}}))
    manifest, facts = run(index_in_child, str(path).encode())
    here = index(memoryview(path.read_bytes()))
    assert indexing.decode(manifest) == here.manifest
    assert b"NaN" in facts


def test_a_large_pickle_is_indexed_in_a_child_to_the_same_end(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(save({f"layers.{i}.weight": torch.zeros(1) for i in range(12_000)}))
    found = index_file(path)
    assert len(found.manifest.tensors) == 12_000
    assert found == index(memoryview(path.read_bytes()))


def test_a_small_file_of_much_work_is_indexed_in_a_child(tmp_path):
    """An object's state of 2,000 values, under 60 objects: too much for a thread, and not for a child."""
    state = {f"k{n}": n for n in range(2_000)}
    kept = b"}(" + b"".join(text(key) + integer(value) for key, value in state.items()) + b"uq\x010"
    path = tmp_path / "model.pt"
    path.write_bytes(zipped(b"(" + kept + b"cf\ng\n)Rh\x01b" * 60 + b"l"))
    with pytest.raises(HostileCheckpoint) as too_much:
        index(memoryview(path.read_bytes()), Work.here())
    assert too_much.value.rule == "too-much-work"
    assert index_file(path) == index(memoryview(path.read_bytes()))


def test_what_is_too_much_for_the_child_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(zipped(b")" + b"q\x01h\x01\x86" * 60))
    with pytest.raises(HostileCheckpoint) as refused:
        index_file(path)
    assert refused.value.rule == "too-much-work"


def test_a_refusal_in_the_child_is_the_same_refusal_here(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(save({"w": torch.zeros(3)})[:-30])
    with pytest.raises(NotACheckpoint) as here:
        index(memoryview(path.read_bytes()))
    with pytest.raises(NotACheckpoint) as there:
        run(index_in_child, str(path).encode())
    assert (there.value.detail, there.value.rule, there.value.where) == (
        here.value.detail, here.value.rule, here.value.where,
    )  # fmt: skip


def test_a_child_that_wants_too_much_memory_is_refused():
    with pytest.raises(HostileCheckpoint) as refused:
        run(too_much_memory)
    assert refused.value.rule == "memory"


def test_a_child_that_takes_too_long_is_refused():
    with pytest.raises(HostileCheckpoint) as refused:
        run(too_much_time, seconds=1)
    assert refused.value.rule == "time"


def test_a_child_is_killed_once_nobody_waits_for_it(tmp_path):
    started = tmp_path / "started"
    with pytest.raises(Cancelled):
        run(never_ends, bytes(started), cancelled=started.exists)
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_nothing_is_started_for_a_request_that_has_gone(tmp_path):
    with pytest.raises(Cancelled):
        run(never_ends, bytes(tmp_path / "started"), cancelled=lambda: True)
    assert not (tmp_path / "started").exists()


def test_a_request_that_goes_gives_up_its_wait_for_a_place(tmp_path):
    """All places are taken, until that has been seen."""
    seen = threading.Event()
    files = [tmp_path / str(place) for place in range(os.cpu_count() or 1)]
    with ThreadPoolExecutor(len(files)) as threads:
        calls = [threads.submit(run, never_ends, bytes(file), cancelled=seen.is_set) for file in files]
        try:
            assert_soon(lambda: all(file.exists() for file in files))
            assert not any(call.done() for call in calls)
            with pytest.raises(Cancelled):
                run(never_ends, bytes(tmp_path / "started"), cancelled=lambda: True)
        finally:
            seen.set()
        assert all(isinstance(call.exception(), Cancelled) for call in calls)


def test_a_child_that_breaks_says_nothing_of_the_server():
    with pytest.raises(StateroomError) as failed:
        run(crash)
    assert "secret" not in failed.value.detail


@pytest.mark.parametrize(
    "error",
    [
        HostileCheckpoint("x", rule="r", where="w"),
        SelectionError("nothing", code="no-keys-matched", near=("a", "b")),
        StateroomError("plain"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_the_pipe_unchanged(error):
    again = wire.error_from_bytes(wire.error_to_bytes(error))
    assert type(again) is type(error)
    assert {name: getattr(again, name) for name in ("detail", "code")} == {"detail": error.detail, "code": error.code}
    for name in ("rule", "where", "near"):
        assert getattr(again, name, None) == getattr(error, name, None)


@pytest.mark.parametrize("parts", [[], [b""], [b"a", b"", b"bc" * 1000]])
def test_parts_cross_the_pipe_unchanged(parts):
    assert wire.split_parts(memoryview(wire.join_parts(parts))) == parts
