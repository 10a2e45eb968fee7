"""The parts of the fuzzer, without an hour of fuzzing: its files are read to the end, and faults are noticed."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.differential.mutations import honest
from tests.fuzz.containers import header_of, pickle_of, with_header, zip_of
from tests.fuzz.findings import Findings
from tests.fuzz.mutator import Mutator
from tests.fuzz.seeds import MAX_SIZE, seeds
from tests.fuzz.tokens import tokens_of, values_of
from tests.fuzz.watch import Fault, fault_of, read
from tests.hostile.corpus.base import HONEST, NOTHING, safetensors, zipped
from tests.support.server import ROOT

HEADER = b'{"w":{"dtype":"F32","shape":[8],"data_offsets":[0,32]}}'


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return list(seeds())


def test_the_seeds_are_small_and_many_of_them_are_read(files: list[bytes]) -> None:
    assert max(map(len, files)) <= MAX_SIZE
    assert sum(read(file) is not None for file in files[::10]) > len(files[::10]) / 4


@pytest.mark.filterwarnings("ignore")  # torch's own
def test_a_zip_taken_apart_and_put_back_is_the_same_to_its_reader() -> None:
    zips = [made for made in map(zip_of, honest().values()) if made is not None]
    assert zips
    for made in zips:
        assert read(made.build()) is not None
        assert zip_of(made.build()) == made


def test_a_changed_pickle_is_put_back_with_the_crc32_it_then_has() -> None:
    made = zip_of(zipped(NOTHING))
    assert made is not None
    pickle = pickle_of(made)
    assert pickle is not None
    pickle.data = pickle.data.replace(b"weight", b"height")
    emitted = read(made.build())
    assert emitted is not None
    assert b"height" in emitted


def test_a_changed_header_is_put_back_with_the_length_it_then_has() -> None:
    file = safetensors(HEADER)
    assert header_of(file) == HEADER
    assert read(with_header(file, HEADER, HEADER.replace(b'"w"', b'"weight"'))) is not None


def test_tokens_are_the_pickle_and_values_push_one_value_each() -> None:
    pickle = b"\x80\x02}q\x00(X\x01\x00\x00\x00a](K\x01K\x02eX\x01\x00\x00\x00bcm\nC\n)Ru."
    tokens = tokens_of(pickle)
    assert b"".join(tokens) == pickle
    values = {b"".join(tokens[start:end]) for start, end in values_of(tokens)}
    assert {b"](K\x01K\x02e", b"cm\nC\n)R", b"X\x01\x00\x00\x00a", pickle[2:-1]} <= values


def test_of_the_files_made_of_honest_ones_a_fair_part_is_accepted() -> None:
    random = Random(0)
    mutator = Mutator(HONEST.values(), lambda data, room: random.randbytes(4) + data[4:room])
    outcomes: Counter[bool] = Counter()
    for seed in range(2000):
        outcomes[read(mutator(random.choice(list(HONEST.values())), 4096, seed)) is not None] += 1
    assert outcomes[True] > 150
    assert outcomes[False] > 150


def test_a_finding_is_kept_with_the_command_that_shows_it_again(tmp_path: Path) -> None:
    findings = Findings(tmp_path)
    for number in range(20):
        findings.keep(Fault("KeyError read.py read", "it says so"), b"x" * (number + 1))
    ((kind, path),) = findings.kinds().items()
    assert kind == "KeyError-read-py-read"
    assert path.read_bytes() == b"x"
    assert f"python -m tests.fuzz {path}" in path.with_suffix(".txt").read_text()
    assert len(list(tmp_path.iterdir())) < 20


def test_faults_are_told_apart_by_what_they_say_but_for_the_numbers_in_it() -> None:
    kinds = {fault_of(AssertionError(text)).kind for text in ("unequal", "at byte 5", "at byte 77")}
    assert len(kinds) == 2


def test_an_import_while_reading_is_heard() -> None:
    program = """
from tests.fuzz import watch
made = watch.Watch()
watch.read = lambda data: __import__("antigravity" if data == b"new" else "sys") and None
print(made.read(b"old"), made.read(b"new").kind)
"""
    done = subprocess.run(
        [sys.executable, "-c", program.replace("antigravity", "this")],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "None heard import"


def test_fuzzing_for_a_moment_ends_with_a_table(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="make fuzz installs it")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--executions", "5000", "--folder", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5,000  executions" in done.stdout
    assert "stock torch reads the same from both" in done.stdout
