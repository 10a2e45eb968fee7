"""The suites: the source of each, and the tests in it that call torch.load."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.peers.sources import debian, sdist, sdist_unbuilt, without_tests


@dataclass(frozen=True, slots=True)
class Suite:
    """A pytest run. ``get`` takes the cache and gives the suite's folder; ``files`` lie in ``inside`` of it.

    ``chosen`` is pytest's ``-k``. ``needs`` are packages that its tests import. ``names`` are those that the tests
    import from older versions of torch. A suite that is not ``usual`` runs with ``--all`` or by name.
    """

    name: str
    get: Callable[[Path], Path]
    inside: str
    files: tuple[str, ...]
    chosen: str = ""
    needs: tuple[str, ...] = ()
    names: Mapping[str, list[str]] = field(default_factory=dict)
    usual: bool = True
    conftest: bool = True
    """Whether the suite's own conftest.py is read: that of an older torch is for an older pytest."""


PYTORCH = partial(debian, "pytorch", "test/")


def torchs(name: str, *files: str, chosen: str = "", usual: bool = True) -> Suite:
    names = {"torch.testing._internal.common_nn": ["new_module_tests"]}
    return Suite(f"torch/{name}", PYTORCH, "test", files, chosen, ("expecttest",), names, usual, conftest=False)


SUITES = (
    torchs(  # not: files of gigabytes, or thousands of reads of one
        "serialization", "test_serialization.py", chosen="not 2gb and not offset"
    ),
    torchs("subclasses", "test_subclass.py", chosen="serialization or state_dict or repr"),
    torchs("optimizers", "test_optim.py", "optim/test_swa_utils.py", chosen="load_nontensor or state_dict or swa"),
    torchs("schedulers", "optim/test_lrscheduler.py", chosen="state_dict or load"),
    torchs(
        "modules",
        "nn/test_module_hooks.py",
        "nn/test_pruning.py",
        "nn/test_parametrization.py",
        "nn/test_load_state_dict.py",
        "nn/test_lazy_modules.py",
        chosen="load or pickle or serialization or hook",
    ),
    torchs("quantization", "quantization/core/test_workflow_module.py", "quantization/core/test_quantized_tensor.py"),
    torchs("quantized modules", "quantization/core/test_quantized_module.py", usual=False),
    torchs("every module", "test_modules.py", chosen="pickle or save_load", usual=False),
    Suite(
        "safetensors",
        partial(sdist_unbuilt, "safetensors"),
        "bindings/python",
        (
            "tests/test_pt_comparison.py",
            "tests/test_pt_model.py",
            "tests/test_simple.py",
            "tests/test_multithreaded.py",
            "tests/test_pread_backend.py",
        ),
        needs=("fsspec",),
    ),
    Suite("lightning", partial(without_tests, "lightning"), "", ()),
    Suite(
        "skorch",
        partial(sdist, "skorch"),
        "",
        ("skorch/tests/test_net.py",),
        chosen="pickle or save or load",
        needs=(
            "scikit-learn",
            "scipy",
            "joblib",
            "cloudpickle",
            "narwhals",
            "flaky",
            "pandas",
            "python-dateutil",
            "six",
            "pytz",
            "threadpoolctl",
            "tabulate",
            "tqdm",
        ),
    ),
    Suite(
        "ignite",
        partial(sdist, "pytorch-ignite"),
        "",
        ("tests/ignite/handlers/test_checkpoint.py",),
    ),
)
