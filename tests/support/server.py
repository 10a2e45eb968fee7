"""A real Stateroom server in a process of its own, for tests that speak HTTP to it."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.forks import Forked, fork

ROOT = Path(__file__).resolve().parents[2]

READY = re.compile(r"^Stateroom is ready on (http://\S+)$", re.MULTILINE)
LONGEST_SECONDS = 180.0
"""For a start, or a stop."""

PATIENT = {
    "STATEROOM_PRELOAD_TORCH": "off",
    **{f"STATEROOM_{name}_SECONDS": "300" for name in ("HEAD", "BODY", "SEND")},
}
"""Settings of every server here, unless ``env`` says otherwise: a busy machine holds up clients that do not dawdle, and
an import of torch takes two seconds of a core.
"""


def whole_lines(text: str) -> list[str]:
    """Return the lines of a file that another process appends to, without the last one if it is still being written."""
    return [line.removesuffix("\n") for line in text.splitlines(keepends=True) if line.endswith("\n")]


@dataclass(slots=True)
class Server:
    """A running server. ``args``, ``env`` and ``command`` are what it was started with, for the next start."""

    process: subprocess.Popen[bytes] | Forked
    base_url: str
    data_dir: Path
    log_file: Path
    args: tuple[str, ...]
    env: Mapping[str, str]
    command: tuple[str, ...] = ()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """Return everything that the server has printed so far, to either stream."""
        return self.log_file.read_text(errors="replace")

    @property
    def lines(self) -> list[dict]:
        """Return the server's log records: each line except the one that reports readiness is a JSON object."""
        return [json.loads(line) for line in whole_lines(self.log) if not READY.fullmatch(line)]

    @property
    def requests(self) -> list[dict]:
        """Return the log records of requests that were understood, in the order in which they ended."""
        return [line for line in self.lines if line["logger"] == "stateroom.requests" and line["path"] is not None]

    @property
    def port(self) -> int:
        return httpx.URL(self.base_url).port or 80

    def client(self, **options) -> httpx.Client:
        """A new HTTP client with this server's base URL; close it, or use it with ``with``."""
        return httpx.Client(base_url=self.base_url, **{"timeout": 60.0, "trust_env": False, "verify": False, **options})

    def stop(self) -> int:
        """Ask the server to stop, as Ctrl+C does; wait, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill the process and its children, as a power cut would; do nothing if the process has ended."""
        if self.process.poll() is None:
            workers = list(_children(self.process.pid))
            os.killpg(self.process.pid, signal.SIGKILL)  # its own group: see start_new_session
            for worker in workers:
                select.select([worker], [], [])  # until it has ended, too: it holds the data dir
                os.close(worker)
        self.process.wait()

    def restart(self) -> None:
        """Kill the server if it runs, and start another on its data dir: a new ``pid``, ``base_url`` and log."""
        self.kill()
        again = start_server(self.data_dir, *self.args, env=self.env, command=self.command)
        self.process, self.base_url, self.log_file = again.process, again.base_url, again.log_file


def _children(pid: int) -> Iterator[int]:
    """A file descriptor of each child process, which is readable once the child has ended."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(ProcessLookupError):
            yield os.pidfd_open(int(child))


def server_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without any setting of Stateroom's, plus ``env``."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STATEROOM_")}
    return {**clean, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT), **(env or {})}


PYTHON_M_APP = (sys.executable, "-m", "app")
"""The command of a server whose interpreter starts anew, for tests of the start, of memory and of the environment."""


def start_server(
    data_dir: Path,
    *args: str,
    env: Mapping[str, str] | None = None,
    command: tuple[str, ...] = (),
    umask: int = 0o022,
) -> Server:
    """Start ``python -m app serve --port 0 --data-dir DATA_DIR ARGS`` and wait until it answers.

    It is forked from a process that has imported it, unless ``command`` says what to execute in place of
    ``python -m app``. It is PATIENT with its clients. Raises RuntimeError with the server's log if it ends or stays
    silent.
    """
    env = dict(env or {})
    assert command or not any(name.startswith("PYTHON") for name in env), "its interpreter has started: see command"
    data_dir.mkdir(parents=True, exist_ok=True)
    log_file = data_dir.parent / f"{data_dir.name}.{time.time_ns()}.log"
    arguments = ["serve", "--port", "0", "--data-dir", str(data_dir), *args]
    if command:
        process = _executed([*command, *arguments], server_environment({**PATIENT, **env}), log_file)
    else:
        process = _forked(arguments, server_environment({**PATIENT, **env}), log_file, umask)
    server = Server(process, "", data_dir, log_file, args, env, command)
    deadline = time.monotonic() + LONGEST_SECONDS
    while not (ready := READY.search("\n".join(whole_lines(server.log)))):
        if process.poll() is not None or time.monotonic() > deadline:
            server.kill()
            raise RuntimeError(f"the server did not start (exit code {process.returncode}):\n{server.log}")
        time.sleep(0.02)
    server.base_url = ready[1]
    return server


def _forked(arguments: list[str], env: Mapping[str, str], log_file: Path, umask: int) -> Forked:
    log_file.touch()
    return fork("app.__main__", arguments, env, stdout=log_file, stderr=log_file, umask=umask)


def _executed(words: list[str], env: Mapping[str, str], log_file: Path) -> subprocess.Popen[bytes]:
    with log_file.open("wb") as log:
        return subprocess.Popen(
            words,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
