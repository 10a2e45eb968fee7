"""The fuzzing processes, restarted when a file has ended one."""

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.counts import Count, read_count
from tests.fuzz.findings import Findings
from tests.fuzz.watch import Fault
from tests.support.server import ROOT, server_environment

SECONDS_A_FILE = 60
MEGABYTES = 4096
"""What libFuzzer ends a process for. Both are far beyond what ``watch`` asks of a reading."""

MAX_SIZE = 4096
_STATE = re.compile(rb"cov: (\d+) ft: (\d+) corp: (\d+)/")


@dataclass(frozen=True, slots=True)
class Asked:
    """How long to fuzz; ``executions`` and ``seconds`` are a job's, 0 seconds is no limit."""

    executions: int
    seconds: float
    seed: int


class Job:
    def __init__(self, number: int, folder: Path, asked: Asked, findings: Findings) -> None:
        self.number = number
        self._folder = folder
        self._asked = asked
        self._findings = findings
        self._began = time.monotonic()
        self._before = self._total()
        self._starts = 0
        self._log = folder / f"log-{number}"
        self._process = self._start()

    def count(self) -> Count:
        return self._total() - self._before

    def coverage(self) -> tuple[int, int, int]:
        """Edges, features and files of the corpus, as libFuzzer counts them."""
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - 20_000))
            states = _STATE.findall(log.read())
        edges, features, files = states[-1] if states else (0, 0, 0)
        return int(edges), int(features), int(files)

    def goes_on(self) -> bool:
        """Whether there is more to come of it. A process that died of a file is started anew."""
        code = self._process.poll()
        if code is None:
            return True
        killers = [*self._folder.glob(f"died-{self.number}-*")]
        for killer in killers:
            tail = self._log.read_bytes()[-8000:].decode(errors="replace")
            self._findings.keep(Fault(f"died of {killer.name.split('-')[2]}", tail), killer.read_bytes())
            killer.unlink()
        if code == 0 or not self._left():
            return False
        if not killers:
            raise RuntimeError(f"a process that fuzzes ended with {code}: see {self._log}")
        self._process = self._start()
        return True

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _total(self) -> Count:
        return read_count(self._folder / f"counts-{self.number}")

    def _left(self) -> int:
        if self._asked.seconds and time.monotonic() - self._began > self._asked.seconds:
            return 0
        return max(0, self._asked.executions - self.count().executions)

    def _start(self) -> subprocess.Popen[bytes]:
        self._starts += 1
        seconds = self._asked.seconds and max(1, self._asked.seconds - (time.monotonic() - self._began))
        arguments = {
            "runs": self._left(),
            "max_total_time": int(seconds),
            "seed": self._asked.seed + 1000 * self.number + self._starts,
            "max_len": MAX_SIZE,
            "len_control": 0,
            "mutate_depth": 2,  # changes on top of each other: what is broken by one seldom gets better by more
            "timeout": SECONDS_A_FILE,
            "rss_limit_mb": MEGABYTES,
            "detect_leaks": 0,
            "reload": 10,  # seconds between two looks at what other jobs have found
            "artifact_prefix": str(self._folder / f"died-{self.number}-"),
        }
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.target", str(self._folder), str(self.number)]
                + [f"-{name}={value}" for name, value in arguments.items()],
                cwd=ROOT,
                env=server_environment(),
                stdout=log,
                stderr=log,
            )
