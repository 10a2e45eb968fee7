"""Limits on the cost of reading a pickle.

A checkpoint of 400,000 tensors with Adam's state is 12 million opcodes, 2.8 million memo slots and 35 MB, so no file
of a training job comes near the limits.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits: ``nbytes`` of pickle; containers nested ``nesting`` deep; ``stack`` values waiting for their container.

    Marks nest as containers do, a few for each.
    """

    nbytes: int = 100 * 1024 * 1024
    opcodes: int = 20_000_000
    memo_slots: int = 4_000_000
    stack: int = 2_000_000
    nesting: int = 1_000


LIMITS = Limits()
