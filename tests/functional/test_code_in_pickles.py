"""A pickle with code in it is stored inert and marked. It never runs: an audit hook in the server sees to that."""

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.functional.audited import Audited
from tests.functional.classifier import make_net
from tests.functional.conftest import HttpModel
from tests.functional.torch_files import loaded, same, saved
from tests.support.measure import long, some
from tests.support.server import ROOT


class Runs:
    """An object whose unpickling calls ``function``."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


ATTACKS: dict[str, Callable[[str], tuple[Any, ...]]] = {
    "os.system": lambda marker: (os.system, f"touch {marker}"),
    "eval": lambda marker: (eval, f"open({marker!r}, 'w')"),
    "exec": lambda marker: (exec, f"open({marker!r}, 'w')"),
    "open": lambda marker: (open, marker, "w"),
    "import": lambda _: (__import__, "antigravity"),
    "Popen": lambda marker: (subprocess.Popen, ["touch", marker]),
}


@long
@pytest.mark.parametrize(
    ("attack", "size"),
    [*((attack, "small") for attack in ATTACKS), *((attack, "large") for attack in some(ATTACKS, 3))],
)
def test_code_in_a_pickle_is_stored_inert_and_marked_and_never_runs(
    audited: Audited, target: HttpModel, tmp_path: Path, attack: str, size: str
) -> None:
    marker = tmp_path / "it-ran"
    net = make_net().state_dict()
    ballast = [f"{i:0100}" for i in range(20_000)] if size == "large" else []  # large ones are read in a child process
    data = saved({"epoch": 1, "model": net, "evil": Runs(*ATTACKS[attack](str(marker))), "ballast": ballast})
    already = len(audited.events())

    shown = target.upload(data)
    assert shown["unsafe_globals"]
    assert target.json("latest/tensors")["items"]
    assert same(loaded(target.get("latest/state_dict")), net)
    refusal = target.refusal("latest/file")
    assert refusal["code"] == "unsafe-globals"
    assert target.get("latest/original") == data
    inert = target.get("latest/file", weights_only="false", device="cuda:0")
    with zipfile.ZipFile(io.BytesIO(inert)) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
    name = shown["unsafe_globals"][0].rpartition(".")[2]
    assert name.encode() in pickled

    events = audited.events()[already:]
    if size == "small":
        assert events == []
    else:
        assert all(event.startswith("subprocess.Popen") and "'app.sandbox'" in event for event in events)
    assert not marker.exists()


def test_the_audit_sees_what_it_is_there_to_see(audited: Audited) -> None:
    assert any(event.startswith("import ") for event in audited.events())


def test_os_system_is_named_in_the_metadata(target: HttpModel) -> None:
    shown = target.upload(saved({"model": {"w": torch.ones(2)}, "evil": Runs(os.system, "true")}))
    assert shown["unsafe_globals"] == [f"{os.system.__module__}.system"]


AUDITED_CHILD = """
import sys
from app.sandbox.index_file import index_in_child

index_in_child(sys.argv[1].encode())  # whatever is imported lazily
sys.addaudithook(lambda event, arguments: print(event, str(arguments)[:200]))
for evil in sys.argv[2:]:
    index_in_child(evil.encode())
"""


def test_the_process_that_reads_large_pickles_only_opens_the_file(tmp_path: Path) -> None:
    marker, harmless = tmp_path / "it-ran", tmp_path / "harmless.pt"
    harmless.write_bytes(saved({"model": {"w": torch.ones(2)}}))
    evil = [tmp_path / f"{name}.pt" for name in ATTACKS]
    for file, attack in zip(evil, ATTACKS.values(), strict=True):
        file.write_bytes(saved({"model": {"w": torch.ones(2)}, "evil": Runs(*attack(str(marker)))}))
    command = [sys.executable, "-c", AUDITED_CHILD, harmless, *evil]
    events = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    opened = [event for event in events if event.startswith("open ")]
    assert len(opened) == len(evil)
    assert all(str(file) in event for file, event in zip(evil, opened, strict=True))
    assert {event.partition(" ")[0] for event in events} <= {"open", "mmap.__new__", "builtins.id"}
    assert not marker.exists()
