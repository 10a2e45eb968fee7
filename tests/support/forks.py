"""Processes that start in a tenth of the time: each is forked from one that has imported the program.

They run the same ``main`` with the same arguments as ``python -m app``, ``stateroom`` and ``python -c``.
"""

import atexit
import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

PROGRAMS = {
    "app.__main__": ("app.maintenance", "app.process.serve", "typer._adapters", "tests.support.documented", "torch"),
    "stateroom._cli.main": ("certifi", "httpcore", "typer._adapters"),
    "tests.support.scripts": ("app.main", "stateroom", "torch"),
}
"""Modules with a ``main(arguments)``, and the modules that are imported before it runs."""

TOGETHER = ("app.__main__", "tests.support.scripts")
"""Programs that are forked from one process: each needs torch, which takes two seconds to import."""


@dataclass(frozen=True, slots=True)
class Order:
    """An order to run a program with these arguments, environment, folder and umask, its streams in files."""

    program: str
    arguments: list[str]
    env: dict[str, str]
    stdout: str
    stderr: str
    stdin: str
    cwd: str
    umask: int


class Forked:
    """A running process, with the part of ``subprocess.Popen`` that tests use."""

    def __init__(self, parent: "_Parent", pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._parent = parent

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._parent.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, or the negative number of a signal. Raises subprocess.TimeoutExpired."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # ended meanwhile, and another thread has asked for its code
                ended = os.pidfd_open(self.pid)
                try:
                    if not select.select([ended], [], [], timeout)[0]:
                        raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
                finally:
                    os.close(ended)
            self.returncode = self._parent.ask({"wait": self.pid})
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def fork(
    program: str,
    arguments: list[str],
    env: Mapping[str, str],
    *,
    stdout: Path,
    stderr: Path,
    stdin: Path | None = None,
    cwd: Path | None = None,
    umask: int = 0o022,
) -> Forked:
    """Start one of PROGRAMS in a session of its own; its output goes to files, which may be one."""
    parent = _parent(TOGETHER if program in TOGETHER else (program,))
    files = str(stdout), str(stderr), str(stdin or os.devnull), str(cwd or CHECKOUT)
    return Forked(parent, parent.ask({"start": asdict(Order(program, arguments, dict(env), *files, umask))}))


class _Parent:
    """The process that forks, which ends with this one."""

    def __init__(self, programs: tuple[str, ...]) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("STATEROOM_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *programs],
            cwd=CHECKOUT,
            env={**clean, "PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._turn = threading.Lock()

    def ask(self, question: object) -> int | None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer: int | None = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@cache
def _parent(programs: tuple[str, ...]) -> _Parent:
    parent = _Parent(programs)
    atexit.register(parent.end)
    return parent


def _next_order() -> Order:
    """Answer questions; return in a new process, with the order that it was made for."""
    ended: dict[int, int] = {}  # exit codes, which the system tells once, and several threads of a test may ask for

    def code_of(pid: int, options: int) -> int | None:
        if pid not in ended:
            found, status = os.waitpid(pid, options)
            if found:
                ended[pid] = os.waitstatus_to_exitcode(status)
        return ended.get(pid)

    for line in sys.stdin:
        match json.loads(line):
            case {"start": order}:
                if (answer := os.fork()) == 0:
                    return Order(**order)
                ended.pop(answer, None)  # of an earlier process with this number
            case {"wait": pid}:  # which has ended
                answer = code_of(pid, 0)
            case {"poll": pid}:
                answer = code_of(pid, os.WNOHANG)
        print(json.dumps(answer), flush=True)
    os._exit(0)


def _become(order: Order) -> None:
    """Take the place of a process that was started with ``order``."""
    os.setsid()
    os.environ.clear()
    os.environ.update(order.env)
    time.tzset()  # TZ may be among them
    os.chdir(order.cwd)
    os.umask(order.umask)
    given = os.open(order.stdin, os.O_RDONLY)
    outputs = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for path in (order.stdout, order.stderr)]
    for number, fd in enumerate((given, *outputs)):
        os.dup2(fd, number)
        os.close(fd)
    sys.stdin = open(0)  # noqa: SIM115 - for the life of the process; the old one has read ahead
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)  # type: ignore[union-attr]  # as PYTHONUNBUFFERED does
    sys.argv = [sys.argv[0], *order.arguments]


class _Ending:
    """Ends a process as its interpreter would, but for taking apart all that was imported: that takes longer than most
    programs. Threads have been waited for and exit handlers have run when it is called, as the last of them.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        atexit.register(self)

    def run(self, main: Callable[[list[str]], object], arguments: list[str]) -> None:
        try:
            sys.exit(main(arguments))  # type: ignore[arg-type]  # a code, or None
        except SystemExit as error:
            self.code = error.code if isinstance(error.code, int) else int(error.code is not None)
            raise
        except Exception:
            self.code = 1
            raise

    def __call__(self) -> None:
        if self.code is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.code)


if __name__ == "__main__":
    ending = _Ending()
    for program in sys.argv[1:]:
        for module in (program, *PROGRAMS[program]):
            import_module(module)
    gc.freeze()
    order = _next_order()
    _become(order)
    ending.run(import_module(order.program).main, order.arguments)
