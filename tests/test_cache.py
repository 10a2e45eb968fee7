"""The cache: bounded, and one computation per key."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest

from app.cache import Cache


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
        return cache.get("key", lambda: (go.wait(5), made.append(1), 42)[-1])

    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(ask, i) for i in range(8)]
        go.set()
        assert [answer.result() for answer in answers] == [42] * 8
    assert made == [1]


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
    assert cache._makers == {}
