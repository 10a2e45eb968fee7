"""A budget of work: how many steps may be spent on one file, or on one plan, before it is given up.

Bytes are no measure of work. A pickle of some kilobytes names one list ten thousand times, and whoever walks what it
describes walks that list ten thousand times. So whatever loops over a file's contents says how many steps it takes.
A step is an opcode, or a value looked at: half a microsecond, about.
"""

from ..errors import HostileCheckpoint

RULE = "too-much-work"

STEPS_HERE = 500_000
"""What may be spent in a thread of the server, 0.3 s; beyond that, a child process starts again. Of the largest pickle
that is read in a thread, an honest one takes half of it.
"""

MIN_STEPS = 1_000_000
STEPS_PER_BYTE = 20
"""What may be spent in a child process: on any file, and besides on each byte of its pickle or header. A checkpoint's
tensors take about one a byte; a list of truth values, of a byte each, eleven, and one of empty lists sixteen.
"""


class Work:
    """Steps that are left. Of one thread."""

    __slots__ = ("_left", "_per_byte")

    def __init__(self, steps: int = MIN_STEPS, per_byte: int = STEPS_PER_BYTE) -> None:
        self._left = steps
        self._per_byte = per_byte

    @classmethod
    def without_end(cls) -> "Work":
        """For a tree that nobody sent."""
        return cls(1 << 62)

    @classmethod
    def for_plan(cls) -> "Work":
        """Twice what reading may take: whatever was stored can be served."""
        return cls(2 * MIN_STEPS, 2 * STEPS_PER_BYTE)

    @classmethod
    def here(cls) -> "Work":
        """The budget of a thread of the server, whatever the file's size."""
        return cls(STEPS_HERE, 0)

    def allow(self, nbytes: int) -> None:
        """Add what so many bytes may take that are going to be parsed."""
        self._left += self._per_byte * nbytes

    def spend_asked(self, steps: int) -> None:
        """Spend steps that the request asks for and not the file: how many those may be is limited elsewhere, so only
        a thread counts them.
        """
        if not self._per_byte:
            self.spend(steps)

    def spend(self, steps: int) -> None:
        """Raises HostileCheckpoint, rule ``too-much-work``, when the budget is used up."""
        self._left -= steps
        if self._left < 0:
            raise HostileCheckpoint(
                "the file's values share each other, or repeat, until reading them takes more work than any checkpoint "
                "of its size does",
                rule=RULE,
            )
