"""What users install, rather than what lies in the repository."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.docs import ROOT
from tests.server import start_server

USE_IT = """
import sys, torch
from stateroom import Client
model = Client(sys.argv[1]).model("wheels/linear")
weights = torch.nn.Linear(3, 2).state_dict()
model.save(weights, epoch=1, loss=0.5)
loaded = model.state_dict("latest", map_location="cpu")
assert all(torch.equal(weights[key], loaded[key]) for key in weights)
"""


SOURCES = ("app", "client", "migrations", "pyproject.toml", "README.md")

CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
"""What would let this repository be found where only wheels are meant to be."""


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True, env=CLEAN)


def copy_sources(to: Path) -> None:
    """Builds leave files behind that later builds would pick up: not in this repository, and not from it."""
    to.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, to)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment in which our two wheels are installed, and their dependencies can be found."""
    folder = tmp_path_factory.mktemp("wheels")
    source = folder / "source"
    copy_sources(source)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source, source / "client")
    environment = folder / "venv"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    wheels = sorted(folder.glob("*.whl"))
    assert [wheel.name.split("-")[0] for wheel in wheels] == ["stateroom", "stateroom_server"]
    pip("--python", python, "install", "--no-deps", "--no-index", *wheels)
    # A path file adds a folder of packages, but none of its editable installs: those of this repository stay out.
    site = next((environment / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin"


def test_the_installed_server_and_client_work_together(installed: Path, tmp_path: Path) -> None:
    server = start_server(tmp_path / "data", command=(str(installed / "stateroom-server"),))
    try:
        subprocess.run([installed / "python", "-c", USE_IT, server.base_url], check=True, cwd=tmp_path, env=CLEAN)
    finally:
        server.kill()


def test_nothing_of_ours_is_installed_under_a_common_name(installed: Path) -> None:
    site = next((installed.parent / "lib").glob("python*/site-packages"))
    ours = {path.name for path in site.iterdir() if path.is_dir()}
    assert {name for name in ours if not name.endswith(".dist-info")} == {"stateroom", "stateroom_server"}
