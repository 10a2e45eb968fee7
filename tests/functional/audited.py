"""A server that records what it runs and what it keeps, for tests that it ran or kept nothing."""

import sqlite3
from contextlib import closing
from pathlib import Path

import httpx

from tests.functional.classifier import make_net
from tests.functional.torch_files import saved
from tests.support.server import PYTHON_M_APP, ROOT, Server, start_server, whole_lines
from tests.support.waiting import assert_soon, downloads_ended

AUDIT = """
import os, sys

_WATCHED = {"import", "exec", "compile", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn",
            "subprocess.Popen", "pickle.find_class", "ctypes.dlopen", "socket.connect", "shutil.rmtree"}
_log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _note(event, arguments):
    if event in _WATCHED:
        os.write(_log, f"{event} {str(arguments)[:200]}\\n".encode(errors="replace"))


sys.addaudithook(_note)
"""


class Audited:
    """A server in which every import, exec, process and unpickling is written down."""

    def __init__(self, folder: Path) -> None:
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(AUDIT)
        self._log = folder / "audit.log"
        env = {"STATEROOM_DURABLE": "off", "AUDIT_LOG": str(self._log), "PYTHONPATH": f"{folder / 'site'}:{ROOT}"}
        self.server = start_server(folder / "data", env=env, command=PYTHON_M_APP)

    def events(self) -> list[str]:
        return whole_lines(self._log.read_text())


def whole_checkpoint() -> bytes:
    return saved({"epoch": 1, "model_state_dict": make_net().state_dict()})


Trace = tuple[list[tuple[str, int]], dict[str, list[str]]]


def trace(server: Server) -> Trace:
    """All that a server keeps: its files with their sizes, and every row of its catalog but for leases.

    The server's own sweep takes a lease, a minute after the start. What downloads still have to store is waited for.
    """
    assert_soon(lambda: downloads_ended(server))
    files = sorted(
        (str(path.relative_to(server.data_dir)), path.stat().st_size)
        for path in server.data_dir.rglob("*")
        if path.is_file() and not path.name.startswith("catalog.sqlite3")
    )
    tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'leases'"
    with closing(sqlite3.connect(f"file:{server.data_dir / 'catalog.sqlite3'}?mode=ro", uri=True)) as catalog:
        names = [name for (name,) in catalog.execute(tables)]
        return files, {name: sorted(map(repr, catalog.execute(f"SELECT * FROM {name}"))) for name in names}


def assert_refused(server: Server, answer: httpx.Response, status: int, code: str, before: Trace) -> None:
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert_leaks_nothing(server, answer.text)
    assert trace(server) == before


def assert_leaks_nothing(server: Server, text: str) -> None:
    for secret in (str(server.data_dir), str(ROOT), "Traceback", 'File "', "site-packages", "/root", "/tmp"):
        assert secret not in text
