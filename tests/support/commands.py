"""The command line of the server."""

import subprocess
import sys

from tests.support.server import ROOT, server_environment


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT, env=server_environment(env), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
