"""Reads one file as an upload, and records its error, its cost, and the audit events of Python."""

import re
import resource
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import RefusedCheckpoint
from app.formats.index import index
from app.formats.manifest_json import decode, encode
from app.formats.pickle.emit import emit
from app.formats.readers import tree_of

SUSPICIOUS = 0.3
"""CPU seconds for a file of a few kilobytes, with every branch of ours counted."""

MEMORY = 256 * 1024 * 1024
EXPECTED_EVENTS = frozenset({"builtins.id"})
_MEASURED_EVERY = 500
"""Readings between two looks at how much memory the process has anyway."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What must not be. ``kind`` is the same for faults that are probably one; ``detail`` is for whoever mends it."""

    kind: str
    detail: str


def fault_of(error: BaseException) -> Fault:
    """``kind`` has what was raised and the innermost of our own lines; of an AssertionError, what it says."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/app/" in frame.filename]
    where = f"{Path(ours[-1].filename).name} {ours[-1].name}" if ours else ""
    said = re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "-", str(error))[:80] if isinstance(error, AssertionError) else ""
    return Fault(f"{type(error).__name__} {said} {where}".strip(), "".join(traceback.format_exception(error)))


def read(data: bytes) -> bytes | None:
    """All that reads a file before it is stored, and its pickle written again, as it is served; None if refused."""
    try:
        manifest = index(memoryview(data)).manifest
        assert decode(encode(manifest)) == manifest, "the manifest is another one when it was stored"
        return emit(tree_of(manifest, b"".join(data[span.start : span.end] for span in manifest.skeletons)))
    except RefusedCheckpoint:
        return None


class Slow:
    """A reading that was given up: whether it takes too long is seen where no branches are counted."""


class Watch:
    """One a process: an audit hook is for ever. Bounds are the process' own, so nothing else may run in it."""

    def __init__(self) -> None:
        self._listens = False
        self._heard: list[str] = []
        self._until_measured = 0
        self._hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        signal.signal(signal.SIGVTALRM, _give_up)
        sys.addaudithook(self._hear)

    def read(self, data: bytes) -> bytes | Slow | Fault | None:
        """What ``read`` gives, or what is wrong with how it came about."""
        if not self._until_measured:
            self._until_measured = _MEASURED_EVERY
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, self._hard))
        self._until_measured -= 1
        signal.setitimer(signal.ITIMER_VIRTUAL, SUSPICIOUS)
        self._listens = True
        try:
            emitted = read(data)
        except Exception as error:  # noqa: BLE001 - whatever comes is what this is about
            self._listens = False
            return Slow() if isinstance(error, TimeoutError) else fault_of(error)
        finally:
            self._listens = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        if self._heard:
            heard = list(self._heard)
            self._heard.clear()
            return Fault(f"heard {heard[0].split()[0]}", "\n".join(heard))
        return emitted

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._listens and event not in EXPECTED_EVENTS:
            self._heard.append(f"{event} {str(arguments)[:100]}")


def _give_up(*_: Any) -> None:
    raise TimeoutError
