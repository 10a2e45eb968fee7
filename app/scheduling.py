"""Which thread goes first when there are more of them than cores."""

import json
import os
import sys
import threading
from typing import Any

NICENESS = 10

SWITCH_SECONDS = 0.0005
"""How long a thread that wants the interpreter waits before it asks for it: Python's own 5 ms are waited anew after
every call that let it go, and one look into the catalog is a dozen of those.
"""


def give_way() -> None:
    """Let every thread of ordinary priority go before this one, for good: the event loop before whoever hashes.

    On Linux, where priorities are a thread's own; elsewhere this changes nothing.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def take_short_turns() -> None:
    """Let the threads of this process take turns ten times as often as Python's default has them."""
    sys.setswitchinterval(SWITCH_SECONDS)


def read_json(data: bytes) -> Any:
    """What a large document says. Other threads get their turns meanwhile: ``json.loads`` of 50 MB is one call, for
    which all of them wait 0.3 s.
    """
    return json.loads(data, parse_int=_integer)


def _integer(text: str) -> int:
    """What ``int`` does; but a function of Python's own, and after one of those it looks whether others wait."""
    return int(text)
