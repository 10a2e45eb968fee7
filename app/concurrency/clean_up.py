"""Calls that clean up, and must run whatever happens to the task that makes them."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


async def clean_up(call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Run ``call`` in a thread; if none can be started, in this one, although that holds up the event loop.

    It is submitted at once, and shielded: a cancelled task may not get to wait for it.
    """
    loop = asyncio.get_running_loop()
    try:
        running = loop.run_in_executor(None, lambda: call(*args, **kwargs))
    except RuntimeError:  # a FairPool, the default executor here, does not call what it refuses
        call(*args, **kwargs)
    else:
        await asyncio.shield(running)
