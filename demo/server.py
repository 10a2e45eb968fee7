"""A real server in a separate process and a temporary folder, for the time of the demo."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running_server() -> Iterator[str]:
    """Start a server on a free port and yield its URL. At the end, stop the server and remove its data.

    Its log is shown only if the demo fails.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STATEROOM_")}
    command = [sys.executable, "-m", "app", "serve", "--port", "0", "--data-dir"]
    with tempfile.TemporaryDirectory(prefix="stateroom-demo-") as folder:
        log = Path(folder) / "log"
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                [*command, f"{folder}/data"], env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as server,
        ):
            try:
                yield wait_until_ready(server)
            except BaseException:
                sys.stderr.write(log.read_text(errors="replace"))
                raise
            finally:
                server.terminate()


def wait_until_ready(server: subprocess.Popen[str]) -> str:
    """Wait for the URL that the server prints when it answers there, and return it."""
    for line in server.stdout or ():
        if found := re.search(r"http://\S+", line):
            return found[0]
    raise RuntimeError(f"the server exited with code {server.wait()}; its output is above")
