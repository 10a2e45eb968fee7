import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.scheduling import NICENESS, give_way


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has a priority of its own on Linux only")
def test_a_thread_that_gives_way_does_so_alone():
    before = niceness()
    with ThreadPoolExecutor(1, initializer=give_way) as pool:
        assert pool.submit(niceness).result() == min(NICENESS, 19)
    assert niceness() == before
