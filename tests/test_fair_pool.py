"""A pool of threads whose callers take turns: none waits for all the work of another."""

from collections.abc import Iterator
from concurrent.futures import CancelledError
from threading import Event, Thread

import pytest

from app.concurrency.cancellation import Work, current, doing
from app.concurrency.fair_pool import FairPool

PATIENCE = 60  # a call that waits for what never comes should fail, not hang


@pytest.fixture
def pool() -> Iterator[FairPool]:
    """One thread for each owner, and one for the others."""
    pool = FairPool(1, "test")
    yield pool
    pool.shutdown()


@pytest.fixture
def go() -> Iterator[Event]:
    """What calls that block wait for; set at the end, whatever happens."""
    event = Event()
    yield event
    event.set()


def test_calls_return_and_raise_what_they_do(pool: FairPool) -> None:
    assert pool.submit(divmod, 7, 2).result(PATIENCE) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 7, 0).result(PATIENCE)


def test_a_call_is_part_of_the_work_it_was_submitted_in(pool: FairPool) -> None:
    work = Work("a")
    with doing(work):
        call = pool.submit(current)
    assert call.result(PATIENCE) is work


def test_a_newcomer_does_not_wait_for_what_an_owner_has_asked_for(pool: FairPool, go: Event) -> None:
    with doing(Work("greedy")):
        greedy = [pool.submit(go.wait) for _ in range(100)]
    with doing(Work("other")):
        assert [pool.submit(len, "x" * i).result(PATIENCE) for i in range(5)] == list(range(5))
    assert not any(call.done() for call in greedy)
    go.set()
    assert all(call.result(PATIENCE) for call in greedy)


def test_owners_are_served_in_turns_and_each_ones_calls_in_order(pool: FairPool, go: Event) -> None:
    done: list[str] = []
    for owner in ("first", "second"):  # one thread each
        with doing(Work(owner)):
            pool.submit(go.wait)
    calls = []
    for owner, count in (("a", 3), ("b", 2), ("c", 1)):
        with doing(Work(owner)):
            calls += [pool.submit(done.append, f"{owner}{i}") for i in range(count)]
    assert done == []
    go.set()
    for call in calls:
        call.result(PATIENCE)
    for owner in "abc":
        assert [each for each in done if each[0] == owner] == sorted(each for each in done if each[0] == owner)
    assert done.index("c0") < done.index("a2")


def test_a_cancelled_call_is_not_made(pool: FairPool, go: Event) -> None:
    made: list[int] = []
    pool.submit(go.wait)
    call = pool.submit(made.append, 1)
    assert call.cancel()
    go.set()
    pool.submit(made.append, 2).result(PATIENCE)
    assert made == [2]


def test_a_pool_that_closes_cancels_what_has_not_begun(pool: FairPool, go: Event) -> None:
    pool.submit(go.wait)
    call = pool.submit(len, "x")
    pool.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(CancelledError):
        call.result(PATIENCE)
    with pytest.raises(RuntimeError):
        pool.submit(len, "x")


def test_a_call_that_no_thread_can_be_started_for_is_not_made(pool: FairPool, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def no_more(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(Thread, "start", no_more)
        with pytest.raises(RuntimeError, match="new thread"):
            pool.submit(made.append, 1)
    pool.submit(made.append, 2).result(PATIENCE)
    assert made == [2]
