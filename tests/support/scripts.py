"""Scripts of tests, each in a process of its own that has imported torch, the client and the server: see ``forks``."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from tests.support.commands import run_program
from tests.support.forks import Forked, fork
from tests.support.server import server_environment


def run_script(
    code: str, *arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``python -c CODE ARGUMENTS`` to its end."""
    return run_program(__name__, [code, *map(str, arguments)], server_environment(env), cwd=cwd)


def start_script(code: str, *arguments: object, output: Path, env: Mapping[str, str] | None = None) -> Forked:
    """Start ``python -c CODE ARGUMENTS``; what it prints goes to a file."""
    output.touch()
    return fork(__name__, [code, *map(str, arguments)], server_environment(env), stdout=output, stderr=output)


def main(arguments: list[str]) -> None:
    """Be the process that ``python -c`` starts with these arguments."""
    script = ModuleType("__main__")
    sys.modules["__main__"] = script
    sys.argv = ["-c", *arguments[1:]]
    exec(compile(arguments[0], "<script>", "exec"), script.__dict__)
