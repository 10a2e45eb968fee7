"""Disk room: the room for uploads, and the reserve that they never get."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from app.errors import StorageFull
from app.store import Room
from tests.support.waiting import LONG_ENOUGH

SIZE = 1_000_000


def blocks(path: Path) -> int:
    return path.stat().st_blocks * 512


def room_at(folder: Path, size: int | None = SIZE) -> Room:
    room = Room(folder, reserve=folder / "stateroom-reserve", size=size)
    room.make_reserve(anew=True)
    return room


def for_uploads(room: Room) -> int:
    return room.free()[0].for_uploads


def test_the_reserve_is_allocated_private_and_as_large_as_it_should_be(tmp_path: Path) -> None:
    reserve = tmp_path / "stateroom-reserve"
    for size in (SIZE, SIZE // 2, SIZE):
        assert room_at(tmp_path, size).reserve_held == reserve.stat().st_size == size
        assert blocks(reserve) >= size
        assert reserve.stat().st_mode & 0o777 == 0o600
    os.truncate(reserve, 0)
    os.truncate(reserve, SIZE)  # as a copy that keeps holes
    room_at(tmp_path)
    assert blocks(reserve) >= SIZE
    assert room_at(tmp_path, 0).reserve_held == 0
    assert not reserve.exists()


def test_a_reserve_that_is_not_set_follows_the_size_of_the_device(small_device: Path) -> None:
    assert room_at(small_device, None).reserve_held == 8 * 1024 * 1024 // 10


def test_uploads_that_run_are_promised_their_room(small_device: Path) -> None:
    room = room_at(small_device)

    async def two() -> None:
        half = for_uploads(room) // 2
        async with room.promised(half) as first:
            with pytest.raises(StorageFull, match=r"sweep --empty-trash --grace 0"):
                async with room.promised(half):
                    pass
            room.check(0)
            first.kept(half)
            async with room.promised(half):
                pass
        async with room.promised(half):
            pass

    asyncio.run(two())


def test_nothing_is_written_for_an_upload_that_would_take_the_reserve(small_device: Path) -> None:
    room = room_at(small_device)
    with room.growing(for_uploads(room)):
        pass
    with pytest.raises(StorageFull), room.growing(for_uploads(room) + 1):
        pass


def test_what_frees_room_gets_the_reserve_when_it_finds_the_disk_full_and_is_done_again(small_device: Path) -> None:
    room = room_at(small_device)
    done = []

    def work() -> int:
        done.append(room.reserve_held)
        if len(done) == 1:
            raise StorageFull("no room left")
        return 204

    assert room.freeing(work) == 204
    assert done == [SIZE, 0]
    with pytest.raises(StorageFull), room.growing(1):
        pass
    room.check(1)  # there is room: the reserve is made again first
    assert room.reserve_held == SIZE
    with room.growing(1):
        pass


def test_a_disk_that_is_full_for_good_is_said_to_be(small_device: Path) -> None:
    room = room_at(small_device)

    def work() -> None:
        raise StorageFull("no room left")

    with pytest.raises(StorageFull):
        room.freeing(work)


def test_the_reserve_is_released_beforehand_where_others_have_taken_the_rest(small_device: Path) -> None:
    room = room_at(small_device)
    rest = small_device / "rest"
    rest.write_bytes(bytes(for_uploads(room) - 4096))
    assert room.refusal() is not None
    assert room.freeing(lambda: room.reserve_held) == 0
    assert room.refusal() is not None
    assert room.reserve_held == 0
    rest.unlink()
    assert room.refusal() is None
    assert room.reserve_held == SIZE


def test_a_release_waits_for_the_writes_of_uploads(tmp_path: Path) -> None:
    room = room_at(tmp_path)
    begun, ends, order = threading.Event(), threading.Event(), []

    def write() -> None:
        with room.growing(10):
            begun.set()
            ends.wait(LONG_ENOUGH)
            order.append("written")

    def full_once() -> None:
        order.append(room.reserve_held)
        if len(order) == 1:
            ends.set()
            raise StorageFull("no room left")

    writer = threading.Thread(target=write)
    writer.start()
    begun.wait(LONG_ENOUGH)
    room.freeing(full_once)
    writer.join(LONG_ENOUGH)
    assert order == [SIZE, "written", 0]


def test_without_a_reserve_uploads_may_take_all_there_is(small_device: Path) -> None:
    room = Room(small_device)
    room.check(for_uploads(room))
    assert for_uploads(room) == room.free()[0].nbytes
    assert room.freeing(lambda: 1) == 1
