"""Files from the fuzzing processes, read again without instrumentation, and judged by stock torch."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch

from app.errors import RefusedCheckpoint
from app.formats.index import index
from tests.deliver.planning import load, served_file
from tests.differential.check import CPU_SECONDS, check
from tests.differential.equality import equal
from tests.differential.judge import Judge
from tests.fuzz.containers import header_of
from tests.fuzz.findings import Findings
from tests.fuzz.other_ways import serve_other_ways
from tests.fuzz.watch import Fault, fault_of


def check_safetensors(data: bytes) -> str:
    """What became of it. What we accept the reference reads too, and our torch file of it is what it reads."""
    try:
        index(memoryview(data))
    except RefusedCheckpoint:
        return "refused"
    served = load(served_file(data))
    try:
        expected = safetensors.torch.load(data)
    except KeyError:  # a dtype that it knows and torch, or its part for torch, does not
        assert {name for name, _ in safetensors.deserialize(data)} == set(served), "the reference reads other names"
        return "accepted: safetensors has no dtype for it"
    except safetensors.SafetensorError as error:
        raise AssertionError(f"the reference does not read it: {error}") from error
    assert equal(sorted(expected.items(), key=_name), sorted(served.items(), key=_name)), "the reference reads another"
    return "accepted: safetensors reads the same from both"


def _name(item: tuple[str, Any]) -> str:
    return item[0]


class Judging:
    """Needs ``close``."""

    def __init__(self, folder: Path, findings: Findings) -> None:
        self.outcomes: Counter[str] = Counter()
        self._folder = folder
        self._findings = findings
        self._judge = Judge()
        self._judged: set[str] = set()

    def close(self) -> None:
        self._judge.close()

    def catch_up(self, until: float) -> None:
        """Judge what is new, as much of it as there is time until ``time.monotonic()`` is ``until``."""
        for data in self._new():
            fault = self.fault_of(data)
            if fault is not None:
                self._findings.keep(fault, data)
            if time.monotonic() > until:
                return

    def fault_of(self, data: bytes) -> Fault | None:
        try:
            began = time.process_time()
            manifest = None
            with suppress(RefusedCheckpoint):
                manifest = index(memoryview(data)).manifest
            assert time.process_time() - began < CPU_SECONDS, "reading took too long"
            if header_of(data) is not None:
                self.outcomes[check_safetensors(data)] += 1
            else:
                self.outcomes[check(data, self._judge)] += 1
            if manifest is not None:
                serve_other_ways(data, manifest)
        except Exception as error:  # noqa: BLE001 - whatever comes is what this is about
            self.outcomes["wrong"] += 1
            return fault_of(error)
        return None

    def _new(self) -> Iterator[bytes]:
        for path in self._folder.glob("sampled/*"):
            if path.suffix != ".part":
                data = path.read_bytes()
                path.unlink()
                yield data
        for path in (*self._folder.glob("corpus/*"), *self._folder.glob("seeds/*")):
            if path.name not in self._judged:
                self._judged.add(path.name)
                try:
                    yield path.read_bytes()
                except FileNotFoundError:  # libFuzzer has found a smaller one that does as much
                    continue
