"""The command lines, run to their end."""

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.forks import fork
from tests.support.server import server_environment
from tests.support.waiting import LONG_ENOUGH


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m app ARGUMENTS`` to its end."""
    return run_program("app.__main__", [*arguments], server_environment(env))


def run_program(
    program: str,
    arguments: list[str],
    env: Mapping[str, str],
    *,
    stdin: str = "",
    cwd: Path | None = None,
    umask: int = 0o022,
) -> subprocess.CompletedProcess[str]:
    """Run one of ``forks.PROGRAMS`` to its end."""
    with tempfile.TemporaryDirectory() as folder:
        given, stdout, stderr = (Path(folder) / name for name in ("stdin", "stdout", "stderr"))
        given.write_text(stdin)
        process = fork(program, arguments, env, stdout=stdout, stderr=stderr, stdin=given, cwd=cwd, umask=umask)
        code = process.wait(LONG_ENOUGH)
        return subprocess.CompletedProcess(arguments, code, stdout.read_text(), stderr.read_text())
