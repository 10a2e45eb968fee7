"""Calls of a function by several threads at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock, Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """Return the results of ``work`` for all items, in their order. The calling thread is one of the threads, and the
    only one if no other can be started: unlike an executor, this works while the interpreter waits for its last
    threads.

    Raises the first error, after all threads have stopped; no item is begun after an error.
    """
    results: dict[int, Result] = {}
    errors: list[BaseException] = []
    lock = Lock()
    left = iter(range(len(items)))

    def run() -> None:
        try:
            while not errors:
                with lock:
                    number = next(left, None)
                if number is None:
                    return
                results[number] = work(items[number])
        except BaseException as error:  # noqa: BLE001  whatever it is, the calling thread raises it
            errors.append(error)

    helpers: list[Thread] = []
    with suppress(RuntimeError):  # Python 3.12 starts no thread once the main thread has ended
        for _ in range(min(threads, len(items)) - 1):
            helper = Thread(target=run)
            helper.start()
            helpers.append(helper)
    run()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(items))]
