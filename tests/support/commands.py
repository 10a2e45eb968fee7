"""The command line of the server."""

import subprocess
import tempfile
from pathlib import Path

from tests.support.forks import fork
from tests.support.server import server_environment
from tests.support.waiting import LONG_ENOUGH


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m app ARGUMENTS`` to its end."""
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder) / "stdout", Path(folder) / "stderr"
        code = fork([*arguments], server_environment(env), stdout, stderr).wait(LONG_ENOUGH)
        return subprocess.CompletedProcess([*arguments], code, stdout.read_text(), stderr.read_text())
