"""The metadata fields of an upload: ``epoch=3``, ``metric.acc=0.9``, ``tag.author=me``."""

import re
from collections.abc import Iterable
from datetime import timedelta

from ...errors import InvalidRequest, SelectionError
from ...select.near import near
from ...values.checkpoint import CheckpointName, Fields, parse_checkpoint_name
from ...values.duration import parse_duration
from .params import dynamic_parameters

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_PLAIN = ("run", "epoch", "step", "loss", "parent", "warm_started_from", "ttl", "slot", "scan")
_KNOWN = (*_PLAIN, "metric.NAME", "tag.NAME")

PARAMETERS = dynamic_parameters(
    **{
        "run": "the training run of the checkpoint",
        "epoch": "an integer; left out: read from the file",
        "step": "an integer; left out: read from the file",
        "loss": "a number; left out: read from the file",
        "parent": "the checkpoint that training went on from, `namespace/name@N`",
        "warm_started_from": "the checkpoint whose tensors training began with, `namespace/name@N`",
        "ttl": "a duration, such as `30d`, after which the checkpoint goes to the trash",
        "slot": "a name: the checkpoint replaces the one that its run has under this name",
        "scan": "`true`: look for numbers that are not finite, after the upload",
        "metric.{name}": "any other number, for example `metric.val_acc=0.91`",
        "tag.{name}": "any text, for example `tag.author=me`",
    }
)


def parse_fields(given: Iterable[tuple[str, str]]) -> Fields:
    """Parse the fields. Raises InvalidRequest (``repeated-parameter``, ``invalid-value``) and SelectionError
    ``unknown-parameter``.
    """
    plain: dict[str, str] = {}
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {}
    seen: set[str] = set()
    for name, text in given:
        if name in seen:
            raise InvalidRequest(f"the field {name!r} is given twice; give it once", code="repeated-parameter")
        seen.add(name)
        kind, _, rest = name.partition(".")
        if name in _PLAIN:
            plain[name] = text
        elif kind == "metric" and rest:
            metrics[rest] = parse_number(name, text)
        elif kind == "tag" and rest:
            tags[rest] = text
        else:
            close = near(name, _KNOWN)
            meant = f"did you mean {close[0]!r}?" if close else f"valid fields: {', '.join(_KNOWN)}"
            raise SelectionError(f"there is no field {name!r}; {meant}", code="unknown-parameter", near=close)
    return Fields(
        run=plain.get("run") or None,
        epoch=parse_integer("epoch", plain["epoch"]) if "epoch" in plain else None,
        step=parse_integer("step", plain["step"]) if "step" in plain else None,
        loss=parse_number("loss", plain["loss"]) if "loss" in plain else None,
        metrics=metrics,
        tags=tags,
        parent=parse_origin("parent", plain["parent"]) if "parent" in plain else None,
        warm_started_from=(
            parse_origin("warm_started_from", plain["warm_started_from"]) if "warm_started_from" in plain else None
        ),
        ttl=parse_ttl(plain["ttl"]) if "ttl" in plain else None,
        slot=plain.get("slot"),
        scan="scan" in plain and parse_flag("scan", plain["scan"]),
    )


def parse_ttl(text: str) -> timedelta:
    """Parse a duration above 0."""
    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise InvalidRequest(f"ttl: {error}", code="invalid-value") from None
    if duration <= timedelta(0):
        raise InvalidRequest("ttl must be longer than 0", code="invalid-value")
    return duration


def parse_flag(name: str, text: str) -> bool:
    if text not in {"true", "false"}:
        raise InvalidRequest(f"{name}={text[:100]!r}: true or false is expected", code="invalid-value")
    return text == "true"


def parse_integer(name: str, text: str) -> int:
    if _INTEGER.fullmatch(text.strip()) is None:
        raise InvalidRequest(f"{name}={text[:100]!r}: an integer is expected", code="invalid-value")
    return int(text)


def parse_origin(name: str, text: str) -> CheckpointName | None:
    """Parse the name of a checkpoint; None for an empty text."""
    origin = parse_checkpoint_name(text)
    if origin is None and text:
        raise InvalidRequest(
            f"{name}={text[:300]!r}: the name of a checkpoint is expected, as in vision/resnet50@12",
            code="invalid-value",
        )
    return origin


def parse_number(name: str, text: str) -> float:
    """Parse a number; ``nan`` and ``inf`` are valid, because a loss can be either."""
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(f"{name}={text[:100]!r}: a number is expected", code="invalid-value") from None
