"""Scheduling of threads when there are more of them than cores."""

import os
import sys
import threading

NICENESS = 10

SWITCH_SECONDS = 0.0005
"""Seconds that a thread waits before it asks for the GIL. Python's default of 5 ms passes again after every call that
released the GIL, and one catalog query is a dozen of those.
"""


def give_way() -> None:
    """Lower this thread's priority for good, so that the event loop goes before threads that hash.

    On Linux each thread has its own priority; elsewhere this changes nothing.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def take_short_turns() -> None:
    """Let the threads of this process take turns ten times as often as by Python's default."""
    sys.setswitchinterval(SWITCH_SECONDS)
