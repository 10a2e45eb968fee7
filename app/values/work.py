"""A budget of work: the steps that may be spent on one file, or on one plan, before it is given up.

Bytes do not measure work. A pickle of some kilobytes may name one list ten thousand times, and a walk through its
values walks that list ten thousand times. So each loop over a file's contents spends steps from the budget. A step is
an opcode, or a value looked at: about half a microsecond.
"""

from ..errors import HostileCheckpoint

RULE = "too-much-work"

STEPS_HERE = 500_000
"""Steps for a thread of the server, 0.3 s; beyond them, a child process starts again. The largest pickle read in a
thread, if honest, takes half of them.
"""

MIN_STEPS = 1_000_000
STEPS_PER_BYTE = 20
"""Steps for a child process: for any file, and besides for each byte of its pickle or header. A checkpoint's tensors
take about one step a byte; a list of bools, of a byte each, eleven, and a list of empty lists sixteen.
"""


class Work:
    """Remaining steps. For use by one thread."""

    __slots__ = ("_left", "_per_byte")

    def __init__(self, steps: int = MIN_STEPS, per_byte: int = STEPS_PER_BYTE) -> None:
        self._left = steps
        self._per_byte = per_byte

    @classmethod
    def without_end(cls) -> "Work":
        """Unlimited budget, for a tree that was not uploaded."""
        return cls(1 << 62)

    @classmethod
    def for_plan(cls) -> "Work":
        """Twice the budget of reading, so that every stored checkpoint can be served."""
        return cls(2 * MIN_STEPS, 2 * STEPS_PER_BYTE)

    @classmethod
    def here(cls) -> "Work":
        """The budget of a thread of the server, whatever the file's size."""
        return cls(STEPS_HERE, 0)

    def allow(self, nbytes: int) -> None:
        """Add the steps for parsing ``nbytes``."""
        self._left += self._per_byte * nbytes

    def spend_asked(self, steps: int) -> None:
        """Spend steps caused by the request, not by the file. They are limited elsewhere, so only a thread's budget
        counts them.
        """
        if not self._per_byte:
            self.spend(steps)

    def spend(self, steps: int) -> None:
        """Spend steps. Raises HostileCheckpoint, rule ``too-much-work``, when the budget is used up."""
        self._left -= steps
        if self._left < 0:
            raise HostileCheckpoint(
                "the file repeats or shares its values so often that reading it takes more work than any honest "
                "checkpoint of its size",
                rule=RULE,
            )
