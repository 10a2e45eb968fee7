"""Reads classes of the corpus as uploads, in a watched process.

``python -m tests.hostile.reading CLASS EVERY`` reads every EVERY-th file of the class.

Prints a line of JSON for each file: the rule under which it is refused ("" if it is read), the CPU time and what an
audit hook heard meanwhile. A file has 256 MiB of memory beyond what the process had before it.
"""

import gc
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from app.errors import RefusedCheckpoint
from app.formats.index import index
from app.formats.pickle.emit import emit
from app.formats.readers import parsing_cost, tree_of
from app.ingest.digest import digest_upload
from app.sandbox.index_file import MAX_BYTES_HERE, FileBytes
from app.store import Spool, SpoolFile
from app.values.work import Work
from tests.hostile.corpus import CLASSES
from tests.hostile.corpus.base import HONEST

MEMORY = 256 * 1024 * 1024
ENDLESS = 30
"""CPU seconds after which a file is given up."""

SLOWEST = 3
"""How many times slower a machine may be that tests this."""

SLOWEST_HERE = 3.0
"""CPU seconds in a thread of the server: ten times what its budget of work takes."""

EXPECTED_EVENTS = {"builtins.id", "mmap.__new__", "ctypes.cdata", "ctypes.cdata/buffer", "ctypes.addressof"}
"""What reading any file is heard doing: ids are taken, and the file itself is mapped to be hashed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """``rule`` is the rule, or the code, of a refusal; the class of any other error, with ``!``; "" of what is read."""

    name: str
    rule: str
    size: int
    seconds: float
    heard: list[str]

    @property
    def allowed_seconds(self) -> float:
        """2 s, or 0.6 s a megabyte, on the machines that the limits were set on; SLOWEST times as much elsewhere."""
        return SLOWEST * max(2.0, 0.6 * self.size / 1e6)


class Ear:
    """Hears what Python does, as an audit hook, while it listens."""

    def __init__(self) -> None:
        self.listens = False
        self.heard: list[str] = []

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.listens and event not in EXPECTED_EVENTS:
            self.heard.append(f"{event} {str(arguments)[:100]}")


def read_upload(spooled: SpoolFile, data: FileBytes, threads: ThreadPoolExecutor) -> None:
    """All that is done with a file before it is stored, and its tree written again, as it is when it is served."""
    if parsing_cost(data, MAX_BYTES_HERE) >= MAX_BYTES_HERE:
        gc.disable()  # as in the child process that then reads it
    else:
        index_here(data)
    manifest = index(data).manifest
    digest_upload(spooled, manifest, threads)
    work = Work.for_plan()
    emit(tree_of(manifest, b"".join(data[span.start : span.end] for span in manifest.skeletons), work), work=work)


def index_here(data: FileBytes) -> None:
    """What a thread of the server does first; what takes more work than that is read again, as a child reads it."""
    start = time.process_time()
    with suppress(RefusedCheckpoint):
        index(data, Work.here())
    seconds = time.process_time() - start
    if seconds > SLOWEST_HERE:
        raise TimeoutError(f"{seconds:.1f} s in a thread of the server")


def rule_of(read: Callable[[], None]) -> str:
    try:
        read()
    except RefusedCheckpoint as error:
        return error.rule or error.code
    except Exception as error:  # noqa: BLE001 - whatever else comes is what this is about
        return f"!{type(error).__name__}: {error}"[:300]
    return ""


def _give_up(*_: Any) -> None:
    raise TimeoutError


def read_watched(name: str, content: bytes, spool: Spool, ear: Ear, threads: ThreadPoolExecutor) -> Reading:
    spooled = spool.create("upload")
    for call in spooled.put(content):
        call.result()
    file = os.open(spooled.path, os.O_RDONLY)
    data = FileBytes(file)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, ENDLESS)
    ear.heard.clear()
    ear.listens = True
    start = time.process_time()
    rule = rule_of(lambda: read_upload(spooled, data, threads))
    seconds = time.process_time() - start
    ear.listens = False
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    gc.enable()
    os.close(file)
    spooled.discard()
    return Reading(name, rule, len(content), seconds, list(ear.heard))


def main(classes: Mapping[str, int]) -> None:
    """Read every so many files of each class.

    Each file is heard; one that seems too slow is read once more, as to hear takes time itself.
    """
    signal.signal(signal.SIGVTALRM, _give_up)
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(1) as threads,
        closing(Spool(Path(folder))) as spool,
    ):
        deaf = Ear()
        for content in HONEST.values():  # whatever is made lazily
            read_watched("", content, spool, deaf, threads)
        ear = Ear()
        sys.addaudithook(ear.hear)
        for file in chain.from_iterable(islice(CLASSES[name](), 0, None, every) for name, every in classes.items()):
            reading = read_watched(file.name, file.data, spool, ear, threads)
            if reading.seconds >= reading.allowed_seconds:
                again = read_watched(file.name, file.data, spool, deaf, threads)
                reading = replace(reading, seconds=again.seconds)
            print(json.dumps(asdict(reading)), flush=True)


if __name__ == "__main__":
    main({sys.argv[1]: int(sys.argv[2])})
