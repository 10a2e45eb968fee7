"""Every file of the corpus is refused under its rule, or read, in bounded time and memory; and nothing else happens."""

import pytest

from tests.hostile.corpus import CLASSES
from tests.hostile.readings import readings
from tests.support.measure import long, measure
from tests.support.scripts import run_script

SLOW = {"pickle: bombs", "pickle: work"}
"""Classes whose files take all the work that one may: few of them are read, each one with ``make stress``."""


@long
@pytest.mark.parametrize("class_name", CLASSES)
def test_every_file_is_refused_by_its_rule_or_inert(class_name: str) -> None:
    every = measure(48 if class_name in SLOW else 4, 1)
    read = readings(class_name, every)
    files = list(CLASSES[class_name]())[::every]
    assert [reading.name for reading in read] == [file.name for file in files]
    assert len({file.name for file in files}) == len(files)
    for file, reading in zip(files, read, strict=True):
        assert reading.rule in (file.rules or {""}) or (file.either and not reading.rule.startswith("!")), reading
        assert reading.seconds < reading.allowed_seconds, reading
        assert reading.heard == [], reading


def test_the_corpus_is_large() -> None:
    assert sum(1 for make in CLASSES.values() for _ in make()) >= 1_000


WATCH = """
import sys
from tests.hostile.reading import Ear
ear = Ear()
sys.addaudithook(ear.hear)
ear.listens = True
exec(sys.argv[1])
ear.listens = False
print(*ear.heard, sep="\\n")
"""


@pytest.mark.parametrize(("does", "heard"), [("import wave", "import"), ("open('/dev/null')", "open")])
def test_the_watch_hears_what_it_is_there_to_hear(does: str, heard: str) -> None:
    done = run_script(WATCH, does)
    assert done.returncode == 0, done.stderr
    assert any(line.startswith(f"{heard} ") for line in done.stdout.splitlines())
