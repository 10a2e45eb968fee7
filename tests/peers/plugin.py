"""A pytest plugin: torch.load and safetensors read a file as a Stateroom server serves it, and each read is compared.

``pytest -p tests.peers.plugin --peers-url URL --peers-log FILE``: a line of JSON for each comparison and each test.
"""

import functools
import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
import safetensors.torch
import torch

import tests
from tests.peers.judging import Finding, attempt
from tests.peers.served import WAYS, Asked, Served

tests.__path__.append(str(Path.cwd() / "tests"))  # a suite may call its tests so, too


SAFE_OPEN, DESERIALIZE = safetensors.safe_open, safetensors.deserialize


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("peers")
    group.addoption("--peers-url", default="", help="the server; without, torch.load stays as it is")
    group.addoption("--peers-model", default="peers/suite")
    group.addoption("--peers-log", type=Path, default=Path(os.devnull))
    group.addoption("--peers-ways", default=",".join(WAYS))
    group.addoption("--peers-names", default="{}", help="JSON: names that older tests import and torch no longer has")


def pytest_configure(config: pytest.Config) -> None:
    for module, names in json.loads(config.getoption("--peers-names")).items():
        for name in names:
            if not hasattr(import_module(module), name):
                setattr(import_module(module), name, gone)
    stay_here()
    log = Log(config.getoption("--peers-log"))
    config.pluginmanager.register(log)
    if config.getoption("--peers-url"):
        config.pluginmanager.register(Through(config, log))


def gone(*_args: Any, **_options: Any) -> Callable[[Any], Any]:
    """Stands for a decorator, a condition or a list of torch's older test helpers: does nothing, decorates nothing."""
    return lambda test: test


def stay_here() -> None:
    """Let no test look up another machine: suites try to download things."""
    look_up = socket.getaddrinfo

    @functools.wraps(look_up)
    def guarded(host: Any, *rest: Any, **options: Any) -> Any:
        if host and str(host) not in {"127.0.0.1", "::1", "localhost"}:
            raise socket.gaierror(f"a test asks for {host!r}, and no test may leave this machine")
        return look_up(host, *rest, **options)

    socket.getaddrinfo = guarded


class Log:
    """Writes down every finding, and the outcome of every test."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._test = ""

    def note(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._write({"test": self._test, **asdict(finding)})

    def _write(self, line: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._test = item.nodeid
        yield
        self._test = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome == "skipped":
            self._write({"test": report.nodeid, "passed": report.outcome})


class Through:
    """Puts itself in the place of torch.load and of safetensors' readers, and writes down what it finds."""

    def __init__(self, config: pytest.Config, log: Log) -> None:
        self._log = log
        self._folder = tempfile.TemporaryDirectory(prefix="peers-")
        self._load = torch.load
        self._busy = threading.local()
        self._turn = threading.Lock()
        self._served = Served(
            config.getoption("--peers-url"),
            config.getoption("--peers-model"),
            tuple(config.getoption("--peers-ways").split(",")),
            self._load,
            Path(self._folder.name),
        )

        @functools.wraps(self._load)
        def load(f: Any, *positional: Any, **named: Any) -> Any:
            return self.load(f, *positional, **named)

        torch.load = torch.serialization.load = load
        safetensors.safe_open = safetensors.torch.safe_open = safetensors.numpy.safe_open = self.safe_open
        safetensors.torch.deserialize = safetensors.numpy.deserialize = self.deserialize

    def load(self, f: Any, *positional: Any, **named: Any) -> Any:
        """Read ``f`` by stock torch, and by way of the server; give the latter, unless it is another."""
        if self._is_busy:
            return self._load(f, *positional, **named)
        with self._at_work():
            data = attempt(lambda: bytes_of(f))
            stock = attempt(lambda: self._load(f, *positional, **named))
            read = stock
            if data.error is None:
                path = f if isinstance(f, str | os.PathLike) else None
                arguments = {**dict(zip(("map_location", "pickle_module"), positional, strict=False)), **named}
                read, findings = self._served.findings(Asked(data.value, path, arguments, stock))
                self._log.note(findings)
        if read.error is not None:
            raise read.error
        return read.value

    def safe_open(self, filename: Any, *positional: Any, **named: Any) -> Any:
        """Open a file of what the server gives of ``filename``."""
        if self._is_busy or not isinstance(filename, str | os.PathLike) or not Path(filename).is_file():
            return SAFE_OPEN(filename, *positional, **named)
        copy = Path(tempfile.mkdtemp(dir=self._folder.name)) / Path(filename).name
        copy.write_bytes(self._safetensors(Path(filename).read_bytes()))
        return SAFE_OPEN(str(copy), *positional, **named)

    def deserialize(self, data: bytes) -> Any:
        return DESERIALIZE(data if self._is_busy else self._safetensors(bytes(data)))

    def _safetensors(self, data: bytes) -> bytes:
        with self._at_work():
            served, findings = self._served.safetensors(data)
            self._log.note(findings)
        return served

    @property
    def _is_busy(self) -> bool:
        return getattr(self._busy, "now", False)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Read plainly meanwhile, in this thread; one thread at a time is at work."""
        with self._turn:
            self._busy.now = True
            try:
                yield
            finally:
                self._busy.now = False

    def pytest_unconfigure(self) -> None:
        torch.load = torch.serialization.load = self._load
        safetensors.safe_open = safetensors.torch.safe_open = safetensors.numpy.safe_open = SAFE_OPEN
        safetensors.torch.deserialize = safetensors.numpy.deserialize = DESERIALIZE
        self._folder.cleanup()


def bytes_of(f: Any) -> bytes:
    """All that torch.load may read of a path or an open file, which stays where it stands."""
    if isinstance(f, str | os.PathLike):
        return Path(f).read_bytes()
    position = f.tell()
    data: bytes = f.read()
    f.seek(position)
    return data
