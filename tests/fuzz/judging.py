"""What the fuzzing processes hand over, read again where nothing slows it down, and judged by stock torch."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from app.errors import RefusedCheckpoint
from app.formats.index import index
from tests.differential.check import CPU_SECONDS, check
from tests.differential.judge import Judge
from tests.fuzz.findings import Findings
from tests.fuzz.watch import Fault, fault_of


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
            with suppress(RefusedCheckpoint):
                index(memoryview(data))
            assert time.process_time() - began < CPU_SECONDS, "reading took too long"
            self.outcomes[check(data, self._judge)] += 1
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
        for path in self._folder.glob("corpus/*"):
            if path.name not in self._judged:
                self._judged.add(path.name)
                try:
                    yield path.read_bytes()
                except FileNotFoundError:  # libFuzzer has found a smaller one that does as much
                    continue
