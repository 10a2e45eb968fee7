import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

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


def test_others_get_their_turns_while_a_large_document_is_read():
    numbers = list(range(1_000_000))
    data, turns, done = json.dumps(numbers).encode(), 0, threading.Event()

    def take_turns() -> None:
        nonlocal turns
        while not done.is_set():
            time.sleep(SWITCH_SECONDS)
            turns += 1

    other = threading.Thread(target=take_turns)
    other.start()
    try:
        before = turns
        assert read_json(data) == numbers
        assert turns - before >= 5, "json.loads lets it have one or two"
    finally:
        done.set()
        other.join()
