"""A real nginx in front of servers, with the configuration in docs/operations.md."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.docs import blocks
from tests.support.ports import held_port
from tests.support.server import Server

MAIN = """
{user}
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{shown}
}}
"""
UPSTREAM = "upstream stateroom {"
START_SECONDS = 180.0


def nginx_program() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextmanager
def balanced(folder: Path, servers: Sequence[Server], method: str) -> Iterator[str]:
    """Yield the URL of an nginx in front of ``servers``; ``method`` is a line of its upstream, "" for round-robin."""
    with held_port() as port:
        yield from _balanced(folder, servers, method, port)


def _balanced(folder: Path, servers: Sequence[Server], method: str, port: int) -> Iterator[str]:
    folder.mkdir()
    shown = next(block.text for block in blocks("docs/operations.md") if "upstream stateroom" in block.text)
    changes = {UPSTREAM: f"{UPSTREAM} {method}", "listen 80;": f"listen 127.0.0.1:{port};"}
    first, *others = re.findall(r" *server [a-z]\.example:8765 .*;\n", shown)
    changes |= {first: "".join(re.sub(r"\S+:8765", f"127.0.0.1:{each.port}", first) for each in servers)}
    changes |= dict.fromkeys(others, "")
    for old, new in changes.items():
        assert shown.count(old) == 1, old
        shown = shown.replace(old, new)
    config = folder / "nginx.conf"
    config.write_text(MAIN.format(user="user root;" if os.geteuid() == 0 else "", folder=folder, shown=shown))
    with_parent = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    program = nginx_program()
    assert program is not None
    process = subprocess.Popen(
        [*with_parent, program, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process, folder / "error.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nginx did not start:\n{log.read_text() if log.exists() else ''}") from None
            time.sleep(0.02)
        else:
            return
