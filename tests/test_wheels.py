"""The installed wheels, rather than the code in the repository.

An environment here holds our wheels and what they declare that they need, linked from where the tests run, and nothing
else: what is used and not declared isn't there.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.metadata import Metadata

from tests.support.docs import ROOT
from tests.support.postgres import Postgres
from tests.support.requirements import closure, dependencies_folder, expose
from tests.support.server import Server, start_server
from tests.support.waiting import until_ready

GENERAL = ROOT / "tests/golden/general.tar"

BUILD = "1f2e3d4"

SOURCES = ("app", "client", "migrations", "pyproject.toml", "README.md", "LICENSE")

CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and not name.startswith("STATEROOM")}
"""Without what would let this repository be found where only wheels are meant to be."""


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True, env=CLEAN)


@dataclass(frozen=True, slots=True)
class Environment:
    """A folder in which pip has installed something."""

    folder: Path

    @property
    def site(self) -> Path:
        return next((self.folder / "lib").glob("python*/site-packages"))

    def program(self, name: str) -> str:
        return str(self.folder / "bin" / name)

    def run(self, program: str, *arguments: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program(program), *map(str, arguments)],
            cwd=cwd, env={**CLEAN, "NO_PROXY": "*", **env}, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip

    def ok(self, program: str, *arguments: str | Path, cwd: Path, **env: str) -> str:
        done = self.run(program, *arguments, cwd=cwd, **env)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        return done.stdout

    def can_import(self, *names: str) -> list[str]:
        """Those of the modules that are there."""
        code = "import sys; from importlib.util import find_spec; print(*filter(find_spec, sys.argv[1:]))"
        return self.ok("python", "-c", code, *names, cwd=self.folder).split()

    def serve(self, data_dir: Path, *arguments: str, program: str = "stateroom-server") -> Server:
        return start_server(data_dir, *arguments, env={"PYTHONPATH": ""}, command=(self.program(program),))


@dataclass(frozen=True, slots=True)
class Built:
    """Our two distributions, as they would be published."""

    folder: Path

    def sdist(self, name: str) -> Path:
        (found,) = self.folder.glob(f"{name}-*.tar.gz")
        return found

    def wheel(self, name: str) -> Path:
        (found,) = self.folder.glob(f"{name}-*.whl")
        return found

    def install(self, requirement: str, *wheels: str) -> Environment:
        """What ``pip install REQUIREMENT`` makes where these wheels are at hand."""
        environment = Environment(self.folder / re.sub(r"\W", "-", requirement))
        venv.create(environment.folder, symlinks=True)
        files = map(self.wheel, wheels)
        pip("--python", environment.program("python"), "install", "--no-deps", "--no-index", "--no-compile", *files)
        expose(closure(requirement, [str(environment.site), dependencies_folder()]), environment.site)
        closure(requirement, [str(environment.site)])  # raises where something is missing
        return environment


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The wheels are built from the sdists: what these lack, they lack. Builds leave files behind that later builds
    would pick up, so none happens in this repository.
    """
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, source)
    (source / "app/build.txt").write_text(f"{BUILD}\n")  # as make wheels does
    for project in (source, source / "client"):
        code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
        command = [sys.executable, "-c", code, str(folder)]
        subprocess.run(command, cwd=project, env=CLEAN, check=True, capture_output=True)
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, *folder.glob("*.tar.gz"))
    return Built(folder)


@pytest.fixture(scope="module")
def client_alone(built: Built) -> Environment:
    return built.install("stateroom", "stateroom")


@pytest.fixture(scope="module")
def server_alone(built: Built) -> Environment:
    return built.install("stateroom-server", "stateroom_server")


@pytest.fixture(scope="module")
def running(server_alone: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = server_alone.serve(tmp_path_factory.mktemp("wheels") / "data")
    yield server
    server.kill()


# pip install stateroom-server


def test_a_server_says_the_commit_that_it_was_built_from(server_alone: Environment, running: Server) -> None:
    assert server_alone.ok("stateroom-server", "--version", cwd=server_alone.folder).endswith(f" ({BUILD})\n")
    with running.client() as http:
        assert http.get("/healthz").json()["build"] == BUILD
        assert f'stateroom_build_info{{build="{BUILD}",' in http.get("/metrics").text


# pip install stateroom


def test_the_client_alone_has_neither_torch_nor_a_server_in_its_environment(client_alone: Environment) -> None:
    others = ("torch", "numpy", "fastapi", "uvicorn", "sqlalchemy", "stateroom_server", "app")
    assert client_alone.can_import("stateroom", *others) == ["stateroom"]


def test_the_client_alone_moves_files_from_the_command_line(
    client_alone: Environment, running: Server, tmp_path: Path
) -> None:
    def stateroom(*arguments: str | Path) -> str:
        return client_alone.ok("stateroom", *arguments, cwd=tmp_path, STATEROOM_URL=running.base_url)

    (pushed,) = json.loads(stateroom("push", GENERAL, "wheels/alone", "--json"))
    assert json.loads(stateroom("ls", "wheels/alone", "--json")) == [pushed]
    assert "param_groups[0]: " in stateroom("show", "wheels/alone", "--tensors")
    stateroom("pull", "wheels/alone", "-o", "whole.tar")
    assert (tmp_path / "whole.tar").read_bytes() == GENERAL.read_bytes()
    stateroom("pull", "wheels/alone", "--state-dict", "--device", "cpu", "-o", "weights.pt")
    assert zipfile.is_zipfile(tmp_path / "weights.pt")
    stateroom("rm", "--yes", "wheels/alone@1")
    assert json.loads(stateroom("ls", "wheels/alone", "--json")) == []


NEEDS_TORCH = """
import sys
from stateroom import Client, TorchRequired
model = Client(sys.argv[1]).model("wheels/none")
for call in (lambda: model.save({}), lambda: model.load("latest"), lambda: model.state_dict("latest")):
    try:
        call()
    except TorchRequired as error:
        print(error)
"""


def test_what_needs_torch_says_so_and_what_to_install(
    client_alone: Environment, running: Server, tmp_path: Path
) -> None:
    said = client_alone.ok("python", "-c", NEEDS_TORCH, running.base_url, cwd=tmp_path).splitlines()
    assert [line.partition(" needs torch")[0] for line in said] == ["save()", "load()", "state_dict()"]
    assert all(line.endswith("pip install 'stateroom[torch]'") for line in said)


def test_serve_without_the_server_says_what_to_install(client_alone: Environment, tmp_path: Path) -> None:
    done = client_alone.run("stateroom", "serve", "--port", "0", cwd=tmp_path, PATH="")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "stateroom: the server is not installed here: pip install 'stateroom[server]'\n"


# pip install "stateroom[torch]"

USE_IT = """
import sys, torch
from stateroom import Client
model = Client(sys.argv[1]).model("wheels/linear")
weights = torch.nn.Linear(3, 2).state_dict()
model.save(weights, epoch=1, loss=0.5)
loaded = model.state_dict("latest", map_location="cpu")
assert all(torch.equal(weights[key], loaded[key]) for key in weights)
"""


def test_with_torch_the_client_saves_and_loads(client_alone: Environment, running: Server, tmp_path: Path) -> None:
    expose(closure("stateroom[torch]", [str(client_alone.site), dependencies_folder()]), tmp_path)
    done = client_alone.run("python", "-c", USE_IT, running.base_url, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr


# pip install stateroom-server


def test_the_server_alone_has_neither_torch_nor_the_client_in_its_environment(server_alone: Environment) -> None:
    others = ("torch", "httpx", "stateroom", "app", "migrations", "tests")
    assert server_alone.can_import("stateroom_server", *others) == ["stateroom_server"]


def test_the_server_alone_takes_checkpoints_and_gives_them_back(running: Server) -> None:
    with running.client() as http:
        base = "/v1/models/wheels/served/checkpoints"
        assert http.post(base, content=GENERAL.read_bytes()).status_code == 201
        assert http.get(f"{base}/latest/original").content == GENERAL.read_bytes()
        assert http.get(f"{base}/latest/state_dict", params={"device": "cpu"}).status_code == 200


def test_the_server_alone_has_its_pages(running: Server) -> None:
    with running.client() as http:
        page = http.get("/").text
        (style,) = re.findall(r'href="(\./static/\w+/page\.css)"', page)
        assert http.get(style).headers["Content-Type"] == "text/css; charset=utf-8"


def test_the_server_alone_migrates_and_serves_a_postgresql(
    server_alone: Environment, postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.empty_database()
    assert server_alone.ok("stateroom-server", "migrate", "--database-url", url, cwd=tmp_path) == ""
    server = server_alone.serve(tmp_path / "data", "--database-url", url, "--workers", "2")
    try:
        with server.client() as http:
            until_ready(http)
    finally:
        server.kill()


# pip install "stateroom[server]"


def test_with_the_server_stateroom_serve_runs_it_with_the_same_options(built: Built, tmp_path: Path) -> None:
    environment = built.install("stateroom[server]", "stateroom", "stateroom_server")
    server = environment.serve(tmp_path / "data", program="stateroom")
    try:
        assert json.loads(environment.ok("stateroom", "ls", "--json", "--url", server.base_url, cwd=tmp_path)) == []
        assert server.stop() == 0
    finally:
        server.kill()
    wrong = environment.run("stateroom", "serve", "--port", "99999", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("stateroom-server: --port")
    assert "--data-dir" in environment.ok("stateroom", "serve", "--help", cwd=tmp_path)


# What is published


@pytest.mark.parametrize(("name", "project"), [("stateroom", "client"), ("stateroom_server", ".")])
def test_a_distribution_describes_itself_as_an_index_wants_it(built: Built, name: str, project: str) -> None:
    with zipfile.ZipFile(built.wheel(name)) as wheel:
        (file,) = (entry for entry in wheel.namelist() if entry.endswith(".dist-info/METADATA"))
        metadata = Metadata.from_email(wheel.read(file), validate=True)
    with tarfile.open(built.sdist(name)) as sdist:
        info = sdist.extractfile(f"{built.sdist(name).name.removesuffix('.tar.gz')}/PKG-INFO")
        assert info is not None
        assert Metadata.from_email(info.read(), validate=True).requires_dist == metadata.requires_dist
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description == (ROOT / project / "README.md").read_text()
    assert metadata.summary
    assert metadata.requires_python


def test_both_distributions_have_the_version_that_they_say_they_have(
    built: Built, client_alone: Environment, running: Server, tmp_path: Path
) -> None:
    version = built.wheel("stateroom").name.split("-")[1]
    assert built.wheel("stateroom_server").name.split("-")[1] == version
    assert client_alone.ok("stateroom", "--version", cwd=tmp_path) == f"stateroom {version}\n"
    with running.client() as http:
        assert http.get("/openapi.json").json()["info"]["version"] == version


def files_of_the_pages() -> set[str]:
    """The templates and static files, with the charts if this repository has fetched them."""
    pages = ROOT / "app/api/pages"
    files = [file for name in ("templates", "static") for file in (pages / name).rglob("*") if file.is_file()]
    return {f"stateroom_server/api/pages/{file.relative_to(pages).as_posix()}" for file in files}


def test_wheels_hold_our_packages_whole_and_nothing_under_a_common_name(built: Built) -> None:
    for name, sources, more in (
        ("stateroom", {"stateroom": "client/stateroom"}, {"stateroom/py.typed"}),
        (
            "stateroom_server",
            {"stateroom_server": "app", "stateroom_server/migrations": "migrations"},
            {"stateroom_server/build.txt", "stateroom_server/migrations/script.py.mako", *files_of_the_pages()},
        ),
    ):
        modules = {
            f"{package}/{file.relative_to(ROOT / folder).as_posix()}"
            for package, folder in sources.items()
            for file in (ROOT / folder).rglob("*.py")
        }
        with zipfile.ZipFile(built.wheel(name)) as wheel:
            assert {entry for entry in wheel.namelist() if ".dist-info/" not in entry} == modules | more
