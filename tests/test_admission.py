"""Admission: owners get places in turns, whether of threads, processes or uploads."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.concurrency.fair_admission import FairPlaces, Place
from app.errors import Cancelled


def take_all(places: FairPlaces, owner: str) -> list[Place]:
    """All that the owner can have now."""
    taken = []
    while (place := places.take(owner)) is not None:
        taken.append(place)
    return taken


class Queue:
    """Those that wait for places, and who was given one, in order."""

    def __init__(self, places: FairPlaces) -> None:
        self.places = places
        self.served: list[str] = []

    def ask(self, owner: str) -> Place:
        return self.places.ask(owner, lambda: self.served.append(owner))


@pytest.mark.parametrize(("capacity", "share"), [(1, 1), (2, 1), (3, 2), (8, 4), (64, 32)])
def test_one_owner_alone_gets_half_of_the_places(capacity: int, share: int) -> None:
    places = FairPlaces(capacity)
    assert len(take_all(places, "a")) == share
    assert places.taken == share


def test_owners_that_take_what_they_can_leave_a_place_for_a_newcomer() -> None:
    places = FairPlaces(64)
    assert [len(take_all(places, owner)) for owner in "abcdef"] == [32, 16, 8, 4, 2, 1]
    assert places.take("newcomer") is not None
    assert places.take("one too many") is None


def test_who_leaves_a_place_makes_room_once() -> None:
    places = FairPlaces(2)
    place = places.take("a")
    assert place is not None
    assert places.take("a") is None
    place.leave()
    place.leave()
    assert len(take_all(places, "a")) == 1
    assert places.taken == 1


def test_owners_are_served_in_turns_however_many_places_each_asked_for() -> None:
    queue = Queue(FairPlaces(1))
    held = queue.places.take("first")
    assert held is not None
    waiting = [queue.ask(owner) for owner in "aaaabbc"]
    assert queue.served == []
    held.leave()
    while queue.places.taken:
        next(place for place in waiting if place in queue.places._taken).leave()
    assert queue.served == list("abcabaa")


def test_an_owner_that_waits_for_more_than_its_share_holds_up_nobody_behind_it() -> None:
    queue = Queue(FairPlaces(8))
    for _ in range(20):
        queue.ask("greedy")
    assert queue.served == ["greedy"] * 4
    queue.ask("other")
    assert queue.served == ["greedy"] * 4 + ["other"]


def test_who_gives_up_waiting_is_not_served() -> None:
    queue = Queue(FairPlaces(1))
    held = queue.ask("a")
    queue.ask("b").leave()
    queue.ask("c")
    assert queue.places.waiting == 1
    held.leave()
    assert queue.served == ["a", "c"]
    assert queue.places.waiting == 0


@given(st.integers(1, 9), st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), max_size=60))
def test_no_place_is_lost_given_twice_or_kept_back_from_all(capacity: int, steps: list[tuple[str, int]]) -> None:
    """A step asks for a place, or leaves one that was asked for earlier."""
    places = FairPlaces(capacity)
    asked: list[Place] = []
    given_to: list[int] = []

    def ask(owner: str) -> None:
        index = len(asked)
        asked.append(places.ask(owner, lambda: given_to.append(index)))

    for owner, which in steps:
        if which < len(asked):
            asked[which].leave()
        else:
            ask(owner)
        assert places.taken <= capacity
        assert places.taken > 0 or places.waiting == 0
    assert len(given_to) == len(set(given_to))
    for place in asked:
        place.leave()
    assert (places.taken, places.waiting) == (0, 0)


def test_a_task_that_is_cancelled_leaves_the_queue_or_its_place() -> None:
    async def main() -> None:
        places = FairPlaces(1)
        held = await places.turn("a")
        waiting = asyncio.create_task(places.turn("b"))
        await asyncio.sleep(0)
        assert places.waiting == 1
        held.leave()  # and "b" is given its place, which it has no time to learn
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (places.taken, places.waiting) == (0, 0)

    asyncio.run(main())


def test_a_thread_stops_waiting_for_a_place_once_its_work_is_given_up() -> None:
    places, given_up = FairPlaces(1), threading.Event()
    held = places.take("a")
    assert held is not None
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            with places.turn_in_thread("b", given_up.is_set):
                pass
        except Cancelled as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    given_up.set()
    thread.join()
    assert len(failures) == 1
    assert places.waiting == 0
