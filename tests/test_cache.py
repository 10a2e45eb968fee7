"""The cache: bounded, and one computation per key."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest

from app.concurrency.cancellation import Work, check, doing
from app.concurrency.single_flight_cache import Cache
from app.errors import Cancelled


def test_what_was_used_last_stays():
    cache: Cache[str] = Cache(3, len)
    assert [cache.get(key, lambda key=key: key) for key in "abc"] == ["a", "b", "c"]
    cache.get("a", lambda: pytest.fail("it was there"))
    cache.get("d", lambda: "d")
    cache.get("a", lambda: pytest.fail("it was used last"))
    assert cache.get("b", lambda: "made again") == "made again"


def test_a_value_larger_than_the_cache_is_still_given():
    cache: Cache[str] = Cache(3, len)
    assert cache.get("big", lambda: "x" * 10) == "x" * 10


def test_many_who_ask_at_once_cause_one_computation():
    cache: Cache[int] = Cache(10, lambda _: 1)
    started, made = Barrier(8), []
    go = Event()

    def ask(_: int) -> int:
        started.wait()
        return cache.get("key", lambda: (go.wait(60), made.append(1), 42)[-1])

    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(ask, i) for i in range(8)]
        go.set()
        assert [answer.result() for answer in answers] == [42] * 8
    assert made == [1]


def ask_for(work: Work, cache: Cache[str], make: Callable[[], str]) -> str:
    with doing(work):
        return cache.get("key", make)


def test_who_gives_up_does_not_take_the_value_from_those_that_wait_for_it():
    cache: Cache[str] = Cache(10, len)
    first, second = Work("a"), Work("b")
    begun, joined = Event(), Event()

    def make() -> str:
        begun.set()
        joined.wait()
        first.give_up()
        check()
        return "made"

    with ThreadPoolExecutor(2) as threads:
        making = threads.submit(ask_for, first, cache, make)
        begun.wait()
        waiting = threads.submit(ask_for, second, cache, lambda: pytest.fail("it is being made"))
        while not cache._making["key"].work.is_wanted_by(second):
            time.sleep(0.001)
        joined.set()
        assert waiting.result() == "made"
        assert isinstance(making.exception(), Cancelled)


def test_what_nobody_waits_for_any_more_is_given_up_and_made_anew_for_the_next():
    cache: Cache[str] = Cache(10, len)
    first, second = Work("a"), Work("b")

    def make() -> str:
        first.give_up()
        check()
        return "made for nobody"

    with pytest.raises(Cancelled):
        ask_for(first, cache, make)
    assert ask_for(second, cache, lambda: "made again") == "made again"


def test_who_gives_up_stops_waiting_for_what_another_makes():
    cache: Cache[str] = Cache(10, len)
    first, second = Work("a"), Work("b")
    begun, go = Event(), Event()
    with ThreadPoolExecutor(2) as threads:
        making = threads.submit(ask_for, first, cache, lambda: (begun.set(), go.wait(), "made")[-1])
        begun.wait()
        waiting = threads.submit(ask_for, second, cache, lambda: pytest.fail("it is being made"))
        second.give_up()
        assert isinstance(waiting.exception(), Cancelled)
        go.set()
        assert making.result() == "made"


def test_a_failure_is_not_remembered():
    cache: Cache[int] = Cache(10, lambda _: 1)
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: 1 // 0)
    assert cache.get("key", lambda: 7) == 7


def test_a_key_that_fails_leaves_nothing_behind():
    cache: Cache[int] = Cache(10, lambda _: 1)
    for key in "abc":
        with pytest.raises(ZeroDivisionError):
            cache.get(key, lambda: 1 // 0)
    assert cache._making == {}
