"""One process that fuzzes until libFuzzer ends it: ``python -m tests.fuzz.target FOLDER JOB [libFuzzer's arguments]``.

It starts from ``FOLDER/seeds`` and ``FOLDER/corpus``, where libFuzzer keeps files that reach what none did before.
What it counts is in ``FOLDER/counts-JOB`` (``counts``); some of what is accepted, or slow, in ``FOLDER/sampled``.
"""

import gc
import hashlib
import sys
import time
from pathlib import Path

import atheris

import app.errors
import app.values.manifest
import app.values.source
import app.values.span  # noqa: F401 - imported before our readers, what is no reader is not instrumented

with atheris.instrument_imports(include=["app"]):
    from tests.fuzz import watch

from tests.fuzz.counts import Counts
from tests.fuzz.findings import Findings
from tests.fuzz.mutator import Mutator

SAMPLED_EVERY = 0.05
"""Seconds between two files that are handed to the judge."""
MOST_WAITING = 200


class Target:
    def __init__(self, folder: Path, job: str, mutator: Mutator) -> None:
        self._counts = Counts(folder / f"counts-{job}")
        self._findings = Findings(folder / "findings")
        self._sampled = folder / "sampled"
        self._mutator = mutator
        self._watch = watch.Watch()
        self._seen: set[int] = set()
        self._next_sample = 0.0

    def one(self, data: bytes) -> int:
        """-1 for what is not to be changed further: libFuzzer drops it."""
        outcome = self._watch.read(data)
        slow = isinstance(outcome, watch.Slow)
        self._counts.add(accepted=isinstance(outcome, bytes), slow=slow)
        if isinstance(outcome, watch.Fault):
            self._findings.keep(outcome, data)
        elif isinstance(outcome, bytes):
            what = hash(outcome)
            if what not in self._seen:  # else all that is new are the bytes of tensors
                self._seen.add(what)
                self._mutator.learn(data)
                self._sample(data)
        elif slow:
            self._sample(data)
        return -1 if slow else 0

    def _sample(self, data: bytes) -> None:
        if time.monotonic() < self._next_sample:
            return
        self._next_sample = time.monotonic() + SAMPLED_EVERY
        if len(list(self._sampled.iterdir())) < MOST_WAITING:
            path = self._sampled / hashlib.sha1(data).hexdigest()
            path.with_suffix(".part").write_bytes(data)
            path.with_suffix(".part").rename(path)


def mutate(data: bytes, max_size: int) -> bytes:
    """atheris.Mutate, which is another function once Setup was called."""
    return atheris.Mutate(data, max_size)


def main() -> None:
    folder, job, *arguments = sys.argv[1:]
    seeds = Path(folder) / "seeds"
    mutator = Mutator([path.read_bytes() for path in sorted(seeds.iterdir())], mutate)
    target = Target(Path(folder), job, mutator)
    gc.freeze()
    atheris.Setup(
        [sys.argv[0], *arguments, str(Path(folder) / "corpus"), str(seeds)], target.one, custom_mutator=mutator
    )
    atheris.Fuzz()


main()
