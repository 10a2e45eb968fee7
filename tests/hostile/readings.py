"""Results of reading a class of the corpus in a process of its own."""

import json
import subprocess
import sys

from tests.hostile.reading import Reading
from tests.support.docs import ROOT


def readings(class_name: str, every: int = 1) -> list[Reading]:
    command = [sys.executable, "-m", "tests.hostile.reading", class_name, str(every)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [Reading(**json.loads(line)) for line in done.stdout.splitlines()]
