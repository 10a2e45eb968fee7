import inspect
import subprocess
import sys

import stateroom
from stateroom import _errors


def test_all_is_sorted_and_holds_every_public_name() -> None:
    public = {
        name for name, value in vars(stateroom).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert set(stateroom.__all__) == public | {"__version__"}
    assert stateroom.__all__ == sorted(stateroom.__all__)


def test_every_error_is_exported_and_drawn_in_the_tree() -> None:
    for name, kind in vars(_errors).items():
        if inspect.isclass(kind) and kind.__module__ == _errors.__name__:
            assert getattr(stateroom, name) is kind
            assert name in (_errors.__doc__ or "")
            assert issubclass(kind, (stateroom.StateroomError, stateroom.StateroomWarning))


def test_every_public_class_and_method_says_what_it_does() -> None:
    for kind in (stateroom.Client, stateroom.Model):
        for name, member in vars(kind).items():
            if inspect.isfunction(member) and not name.startswith("_") and name != "checkpoint":
                assert member.__doc__, f"{kind.__name__}.{name}"


def test_importing_the_client_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, stateroom; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'pickle5')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_torch_the_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["torch"] = None
from stateroom import Client, TorchRequired
model = Client("http://127.0.0.1:9", retries=0).model("a/b")
for attempt in (
    lambda: model.state_dict(1),
    lambda: model.load(1),
    lambda: model.save({}),
    lambda: model.load_into(object(), 1),
    lambda: model.warmstart(object(), 1),
    lambda: next(model.iter_tensors(1)),
):
    try:
        attempt()
    except TorchRequired as error:
        assert isinstance(error, ImportError) and "stateroom[torch]" in str(error), error
    else:
        sys.exit("no error")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
