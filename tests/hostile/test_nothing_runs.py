"""Reading a pickle imports nothing, opens nothing and runs nothing, as Python's own audit events show."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.make import text, with_tensor

AUDITED = """
import json, sys
from app.formats.pickle.emit import emit
from app.formats.readers import read
from app.formats.torch_tensors import is_tensor, tensor_of
file = memoryview(open(sys.argv[1], "rb").read())
modules = set(sys.modules)
events = []
active = True
def hear(event, args):
    if active and event != "builtins.id":
        events.append(event)
sys.addaudithook(hear)
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


@pytest.mark.parametrize("attack", ATTACKS)
def test_reading_code_does_nothing_that_an_audit_hook_sees(tmp_path: Path, attack: str) -> None:
    file = tmp_path / "checkpoint"
    pickle = ATTACKS[attack].replace(b"cos\nX\x06", b"cos\npath\nX\x06")
    file.write_bytes(with_tensor(pickle))
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", AUDITED, str(file)]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    heard = json.loads(done.stdout)
    assert heard["events"] == []
    assert heard["modules"] == []
    assert heard["unsafe"]
    assert heard["emitted"]
    assert not (tmp_path / "owned").exists()
