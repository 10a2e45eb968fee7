"""Results of reading classes of the corpus in a process of their own."""

import json
from collections.abc import Mapping

from tests.hostile.reading import Reading
from tests.support.scripts import run_script

READ = "import json, sys; from tests.hostile.reading import main; main(json.loads(sys.argv[1]))"


def readings(classes: Mapping[str, int]) -> list[Reading]:
    """Read every so many files of each class."""
    done = run_script(READ, json.dumps(dict(classes)))
    assert done.returncode == 0, done.stderr[-2000:]
    return [Reading(**json.loads(line)) for line in done.stdout.splitlines()]
