import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from app.api.responses.json import view_json
from app.api.routes.negotiated import UploadView
from app.concurrency.scheduling import NICENESS, SWITCH_SECONDS, give_way
from app.values.json_text import read_json


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has a priority of its own on Linux only")
def test_a_thread_that_gives_way_does_so_alone():
    before = niceness()
    with ThreadPoolExecutor(1, initializer=give_way) as pool:
        assert pool.submit(niceness).result() == min(NICENESS, 19)
    assert niceness() == before


@contextmanager
def turns_of_another() -> Iterator[Callable[[], int]]:
    """Run a thread that wants a turn every SWITCH_SECONDS; count its turns since the block began."""
    turns, done = 0, threading.Event()

    def take_turns() -> None:
        nonlocal turns
        while not done.is_set():
            time.sleep(SWITCH_SECONDS)
            turns += 1

    other = threading.Thread(target=take_turns)
    other.start()
    before = turns
    try:
        yield lambda: turns - before
    finally:
        done.set()
        other.join()


def test_others_get_their_turns_while_a_large_document_is_read() -> None:
    numbers = list(range(1_000_000))
    data = json.dumps(numbers).encode()
    with turns_of_another() as turns:
        assert read_json(data) == numbers
        assert turns() >= 5, "json.loads lets it have one or two"


def test_others_get_their_turns_while_a_long_answer_is_written() -> None:
    runs = [(2 * number, 2 * number + 1) for number in range(1_000_000)]
    upload = UploadView.model_construct(id="u", missing_bytes=1, missing=runs)
    with turns_of_another() as turns:
        assert len(view_json(upload)) > 10_000_000
        assert turns() >= 5, "model_dump_json lets it have one or two"
