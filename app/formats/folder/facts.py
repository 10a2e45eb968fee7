"""Facts about a folder from the files beside its checkpoints.

Reference: ``TrainerState`` in transformers/trainer_callback.py.
"""

from collections.abc import Mapping

from ...values.work import Work
from ..part import Part
from .shards import json_of

TRAINER_STATE = "trainer_state.json"

MAX_STATE = 16 * 1024 * 1024
"""Bytes of a trainer's state that is read; a longer one is only kept."""


def trainer_facts(files: Mapping[str, Part], work: Work) -> dict[str, float]:
    """Return epoch, step and the newest value of each number in the log of ``trainer_state.json``, if there is one."""
    part = files.get(TRAINER_STATE)
    if part is None or len(part) > MAX_STATE:
        return {}
    work.allow(len(part))
    work.spend(len(part))
    state = json_of(part)
    if not isinstance(state, dict):
        return {}
    log = state.get("log_history")
    numbers: dict[str, float] = {}
    for entry in log if isinstance(log, list) else []:
        if isinstance(entry, dict):
            numbers |= {name: value for name, value in entry.items() if type(value) in {int, float}}
    numbers.pop("step", None)
    for name, known in (("epoch", "epoch"), ("step", "global_step"), ("best_metric", "best_metric")):
        if type(state.get(known)) in {int, float}:
            numbers[name] = state[known]
    return numbers
