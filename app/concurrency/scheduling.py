"""Which thread goes first when there are more of them than cores."""

import os
import sys
import threading

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
