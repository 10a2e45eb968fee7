"""The memory budget: no caller gets more than there is, or keeps the next one out."""

import asyncio
from contextlib import AsyncExitStack, suppress

import pytest

from app.concurrency.memory_budget import MemoryBudget
from app.errors import ServerBusy

NO_TIME = 0.01


def test_one_caller_holds_at_most_half_and_the_next_ones_find_room() -> None:
    async def run() -> list[int]:
        budget, held = MemoryBudget(1000, NO_TIME), []
        async with AsyncExitStack() as stack:
            for caller in ("a", "b", "c"):
                with suppress(ServerBusy):
                    for _ in range(100):
                        await stack.enter_async_context(budget.reserved(10, caller))
                held.append(budget.held)
        assert budget.held == 0
        return held

    assert asyncio.run(run()) == [500, 750, 870]


def test_who_asks_for_more_than_there_is_gets_all_of_it_and_the_next_one_waits() -> None:
    async def run() -> None:
        budget = MemoryBudget(1000)
        entered = asyncio.Event()

        async def second() -> None:
            async with budget.reserved(10, "b"):
                entered.set()

        async with budget.reserved(5000, "a"):
            waiting = asyncio.create_task(second())
            await asyncio.sleep(0)
            assert not entered.is_set()
            assert budget.held == 1000
        await waiting
        assert budget.held == 0

    asyncio.run(run())


def test_a_large_request_is_not_overtaken_for_ever_by_small_ones() -> None:
    async def run() -> list[str]:
        budget, order = MemoryBudget(1000), []

        async def take(nbytes: int, caller: str) -> None:
            async with budget.reserved(nbytes, caller):
                order.append(caller)

        async with budget.reserved(300, "first"):
            tasks = [asyncio.create_task(take(800, "large")), asyncio.create_task(take(10, "small"))]
            await asyncio.sleep(0)
            assert order == []
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(run()) == ["large", "small"]


def test_who_goes_away_while_it_waits_leaves_nothing_behind() -> None:
    async def run() -> None:
        budget = MemoryBudget(1000)
        async with budget.reserved(1000, "a"):
            waiting = asyncio.create_task(budget.reserved(1000, "b").__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert budget.held == 0
        async with budget.reserved(1000, "c"):
            assert budget.held == 1000

    asyncio.run(run())
