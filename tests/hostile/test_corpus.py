"""Every file of the corpus is refused under its rule, or read, in bounded time and memory; and nothing else happens."""

import pytest

from tests.hostile.corpus import CLASSES
from tests.hostile.readings import readings
from tests.support.measure import long, measure
from tests.support.scripts import run_script

SLOW = {"pickle: bombs", "pickle: work"}
"""Classes whose files take all the work that one may: few of them are read, each one with ``make stress``."""


EVERY = {name: measure(48 if name in SLOW else 8, 1) for name in CLASSES}

GROUPS = measure([list(CLASSES)], [[name] for name in CLASSES])
"""Classes that one process reads: to start it takes longer than to read a few files."""


@long
@pytest.mark.parametrize("class_names", GROUPS, ids=lambda names: names[0] if len(names) == 1 else "all")
def test_every_file_is_refused_by_its_rule_or_inert(class_names: list[str]) -> None:
    read = iter(readings({name: EVERY[name] for name in class_names}))
    for class_name in class_names:
        files = list(CLASSES[class_name]())[:: EVERY[class_name]]
        assert len({file.name for file in files}) == len(files)
        for file in files:
            reading = next(read)
            assert reading.name == file.name, class_name
            assert reading.rule in (file.rules or {""}) or (file.either and not reading.rule.startswith("!")), reading
            assert reading.seconds < reading.allowed_seconds, reading
            assert reading.heard == [], reading
    assert list(read) == []


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
