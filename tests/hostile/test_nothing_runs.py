"""Reading a pickle imports nothing, opens nothing and runs nothing, as Python's own audit events show."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.hostile.make import text, with_tensor
from tests.support.docs import ROOT

AUDITED = """
import json, sys
from app.formats.pickle.emit import emit
from app.formats.readers import read
from app.formats.torch_tensors import is_tensor, tensor_of
active = False
def hear(event, args):
    if active and event != "builtins.id":
        events.append(event)
sys.addaudithook(hear)
for name in sys.argv[1:]:
    file = memoryview(open(name, "rb").read())
    modules = set(sys.modules)
    events = []
    active = True
    document = read(file)
    emitted = emit(document.root)
    active = False
    print(json.dumps({
        "events": events,
        "modules": sorted(set(sys.modules) - modules),
        "unsafe": document.unsafe_globals,
        "emitted": len(emitted),
    }))
"""

ATTACKS = {
    "os.system": b"cos\nsystem\n" + text("touch owned") + b"\x85R",
    "posix.system": b"cposix\nsystem\n" + text("touch owned") + b"\x85R",
    "builtins.eval": b"cbuiltins\neval\n" + text("open('owned', 'w')") + b"\x85R",
    "builtins.exec of protocol 0": b'(S\'open("owned", "w")\'\ni__builtin__\nexec\n',
    "builtins.__import__": b"cbuiltins\n__import__\n" + text("antigravity") + b"\x85R",
    "subprocess.Popen by NEWOBJ": b"csubprocess\nPopen\n" + text("touch owned") + b"\x85\x81",
    "subprocess.Popen by NEWOBJ_EX": b"csubprocess\nPopen\n" + text("touch owned") + b"\x85}\x92",
    "subprocess.Popen by OBJ": b"(csubprocess\nPopen\n" + text("touch owned") + b"o",
    "a dotted name": text("os") + text("path.join.__globals__") + b"\x93)R",
    "a state": b"cargparse\nNamespace\n)\x81}" + text("__class__") + b"cos\nsystem\nsb",
    "an append to what a call gave": b"cbuiltins\nopen\n" + text("owned") + b"\x85RNa",
    "a module that is not there": b"cno_such_module\nf\n)R",
    "torch.load inside": b"ctorch.storage\n_load_from_bytes\nC\x01x\x85R",
    "a call as a function": b"cbuiltins\ngetattr\ncos\nX\x06\x00\x00\x00system\x86R" + text("touch owned") + b"\x85R",
}


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process, which reads a file of each attack, hears itself do meanwhile."""
    folder = tmp_path_factory.mktemp("attacks")
    files = [folder / str(number) for number in range(len(ATTACKS))]
    for file, pickle in zip(files, ATTACKS.values(), strict=True):
        file.write_bytes(with_tensor(pickle.replace(b"cos\nX\x06", b"cos\npath\nX\x06")))
    command = [sys.executable, "-c", AUDITED, *map(str, files)]
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not (folder / "owned").exists()
    return dict(zip(ATTACKS, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("attack", ATTACKS)
def test_reading_code_does_nothing_that_an_audit_hook_sees(heard: dict[str, Any], attack: str) -> None:
    assert heard[attack]["events"] == []
    assert heard[attack]["modules"] == []
    assert heard[attack]["unsafe"]
    assert heard[attack]["emitted"]
