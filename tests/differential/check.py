"""A comparison of how Stateroom and stock torch read one file."""

import time
from collections.abc import Callable

from app.errors import RefusedCheckpoint, StateroomError
from app.formats.index import index
from tests.deliver.planning import served_file, served_state_dict
from tests.differential.judge import Judge, Verdict

CPU_SECONDS = 2.0


def check(data: bytes, judge: Judge) -> str:
    """What became of it, in a word. Raises AssertionError for what must not be, and whatever the reader let through."""
    began = time.process_time()
    try:
        manifest = index(memoryview(data)).manifest
    except RefusedCheckpoint:
        assert time.process_time() - began < CPU_SECONDS, "the refusal took too long"
        return "refused"
    for component in manifest.components:
        ours = _served(lambda name=component.name: served_state_dict(data, component=name))
        assert ours is None or judge.loads(ours), f"component {component.name!r}: {judge.reason}"
    whole = _served(lambda: served_file(data))
    if whole is None:
        return "accepted, not served as a whole"
    verdict = judge.compare(data, whole)
    assert verdict is not Verdict.DIFFERENT, judge.reason
    return f"accepted: {verdict.value}"


def _served(serve: Callable[[], bytes]) -> bytes | None:
    """None where a download is refused by name."""
    try:
        return serve()
    except StateroomError:
        return None
