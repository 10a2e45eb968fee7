"""Warnings of the client point at the line that called it."""

import warnings
from pathlib import Path

import stateroom
from stateroom._warn import warn


def test_a_caller_beside_the_package_is_no_part_of_it() -> None:
    caller = f"{Path(stateroom.__file__).parent}_of_mine/train.py"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile("\n\nwarn('look here')", caller, "exec"), {"warn": warn})
    assert [(each.filename, each.lineno) for each in caught] == [(caller, 3)]
