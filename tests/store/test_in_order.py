"""Calls in order: each once, one at a time; and none waits for ever, whatever goes wrong."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.store.in_order import InOrder
from tests.support.waiting import LONG_ENOUGH


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_calls_are_made_in_order_one_at_a_time_beside_those_of_others(pool: ThreadPoolExecutor) -> None:
    made: list[list[int]] = [[], [], []]
    active = [0, 0, 0]
    most = [0]

    def call(writer: int, number: int) -> None:
        active[writer] += 1
        assert active[writer] == 1
        most[0] = max(most[0], sum(active))
        time.sleep(0.0005)
        made[writer].append(number)
        active[writer] -= 1

    writers = [InOrder(pool) for _ in made]
    calls = [
        writers[writer].submit(lambda writer=writer, number=number: call(writer, number))
        for number in range(100)
        for writer in range(3)
    ]
    for each in calls:
        assert each.result(LONG_ENOUGH) is None
    assert made == [list(range(100))] * 3
    assert most[0] > 1


def test_after_one_that_failed_none_is_made(pool: ThreadPoolExecutor) -> None:
    made = []

    def fail() -> None:
        raise OSError("the disk is full")

    calls = InOrder(pool)
    good = calls.submit(lambda: made.append(1))
    bad = [calls.submit(fail), calls.submit(lambda: made.append(2)), calls.submit(lambda: made.append(3))]
    assert good.result(LONG_ENOUGH) is None
    for each in bad:
        with pytest.raises(OSError, match="the disk is full"):
            each.result(LONG_ENOUGH)
    assert made == [1]


def test_what_a_pool_that_closes_has_not_begun_fails() -> None:
    pool = ThreadPoolExecutor(1)
    goes_on = threading.Event()
    made = []
    calls = InOrder(pool)
    running = calls.submit(goes_on.wait)
    waiting = [calls.submit(lambda: made.append(1)) for _ in range(3)]
    pool.shutdown(wait=False)
    goes_on.set()
    assert running.result(LONG_ENOUGH) is None
    for each in [*waiting, calls.submit(lambda: made.append(1))]:
        with pytest.raises(RuntimeError, match="after shutdown"):
            each.result(LONG_ENOUGH)
    assert made == []
