"""Results of reading a class of the corpus in a process of its own."""

import json

from tests.hostile.reading import Reading
from tests.support.scripts import run_script

READ = "import sys; from tests.hostile.reading import main; main(sys.argv[1], int(sys.argv[2]))"


def readings(class_name: str, every: int = 1) -> list[Reading]:
    done = run_script(READ, class_name, every)
    assert done.returncode == 0, done.stderr[-2000:]
    return [Reading(**json.loads(line)) for line in done.stdout.splitlines()]
