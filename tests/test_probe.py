"""Checks of parts that may hang."""

import asyncio
import threading

import pytest

from app.concurrency.probe import Probe
from app.errors import StoreError
from tests.support.scripts import run_script
from tests.support.waiting import LONG_ENOUGH, awaited_soon


def test_a_check_that_hangs_costs_one_thread_and_runs_again_once_it_has_ended() -> None:
    going_on = threading.Event()
    runs = 0

    def check() -> int:
        nonlocal runs
        runs += 1
        assert going_on.wait(LONG_ENOUGH)
        return runs

    async def main() -> None:
        probe = Probe("part", check, 0.05)
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await probe.ask()
        assert runs == 1
        assert sum(thread.name == "probe of the part" for thread in threading.enumerate()) == 1
        going_on.set()

        async def answers() -> bool:
            try:
                return await probe.ask() >= 2
            except TimeoutError:
                return False

        await awaited_soon(answers)

    asyncio.run(main())


def test_callers_at_the_same_time_share_a_check_and_its_error() -> None:
    runs = 0

    def check() -> None:
        nonlocal runs
        runs += 1
        raise StoreError("it is gone")

    async def main() -> None:
        probe = Probe("part", check, LONG_ENOUGH)
        found = await asyncio.gather(*(probe.ask() for _ in range(5)), return_exceptions=True)
        assert [str(error) for error in found] == ["it is gone"] * 5
        assert runs == 1
        with pytest.raises(StoreError):
            await probe.ask()
        assert runs == 2

    asyncio.run(main())


def test_a_check_that_hangs_does_not_keep_the_process() -> None:
    program = """
import asyncio, threading
from app.concurrency.probe import Probe
async def main():
    try:
        await Probe("part", threading.Event().wait, 0.05).ask()
    except TimeoutError:
        print("too late")
asyncio.run(main())
"""
    ended = run_script(program)
    assert (ended.returncode, ended.stdout) == (0, "too late\n")
