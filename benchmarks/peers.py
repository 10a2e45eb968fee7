"""Other servers for comparison: nginx (WebDAV) and MLflow's artifact server, if ``bring_peers`` could bring them."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BROUGHT = ROOT / "build" / "peers-of-bench"
"""The folder that ``bring_peers`` brings programs to."""

START_SECONDS = 240

NGINX = """\
daemon off;
user root;
worker_processes 2;
pid {folder}/nginx.pid;
error_log stderr error;
events {{}}
http {{
  access_log off;
  sendfile on;
  client_max_body_size 0;
  client_body_temp_path {folder}/tmp;
  proxy_temp_path {folder}/tmp-proxy;
  fastcgi_temp_path {folder}/tmp-fastcgi;
  uwsgi_temp_path {folder}/tmp-uwsgi;
  scgi_temp_path {folder}/tmp-scgi;
  server {{
    listen 127.0.0.1:{port};
    root {folder}/files;
    dav_methods PUT;
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that accepts PUT of a file. ``start`` makes the command from the program, a folder for its data, and a
    port; ``own`` is the folder of the program in BROUGHT. A file uploaded to ``path`` is then in ``folder / "files"``.
    """

    name: str
    program: str
    own: str
    path: str
    start: Callable[[str, Path, int], list[str]]
    version_option: str
    is_slow: bool = False
    """True for a program that takes several times as long as the others: fewer turns are enough."""

    @property
    def _found(self) -> str | None:
        """The program that was brought into the folder ``own`` of BROUGHT, or one on the PATH."""
        return shutil.which(self.program, path=str(BROUGHT / self.own)) or shutil.which(self.program)

    @property
    def version(self) -> str | None:
        """The version that the program prints; None if it is not installed."""
        if self._found is None:
            return None
        said = subprocess.run([self._found, self.version_option], capture_output=True, text=True, check=False)
        return (said.stdout + said.stderr).strip().rpartition(" ")[2]

    @property
    def installed(self) -> bool:
        return self._found is not None

    @contextmanager
    def running(self, folder: Path) -> Iterator[str]:
        """Start the server, yield its URL, and stop the server at the end."""
        program = self._found
        assert program is not None
        (folder / "files").mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = self.start(program, folder, port)
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            wait_for(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def nginx_command(program: str, folder: Path, port: int) -> list[str]:
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port))
    return [program, "-e", "stderr", "-p", str(folder), "-c", str(config)]


def mlflow_command(program: str, folder: Path, port: int) -> list[str]:
    destination = ["--artifacts-only", "--artifacts-destination", str(folder / "files")]
    return [program, "server", *destination, "--workers", "1", "--port", str(port)]


PEERS = (
    Peer("nginx dav PUT", "nginx", "nginx/usr/sbin", "/general.tar", nginx_command, "-v"),
    Peer(
        "MLflow",
        "mlflow",
        "mlflow/bin",
        "/api/2.0/mlflow-artifacts/artifacts/general.tar",
        mlflow_command,
        "--version",
        is_slow=True,
    ),
)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"{process.args!r} does not listen on port {port}")
