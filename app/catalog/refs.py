"""Refs: texts that pick one checkpoint of a model.

``12`` or ``v12``, ``latest``, ``best``, ``min:NAME``, ``max:NAME``, ``epoch:N``, ``step:N``, or an alias. If a run is
given, a ref picks among its checkpoints; an alias that means another run's checkpoint picks none. Ties go to the newest
version; non-finite values are not ranked.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from sqlalchemy import ColumnElement, Select, bindparam, func, select

from ..errors import InvalidRequest
from .rows import MAX_INTEGER, MAX_NAME_LENGTH, check_text
from .session import ReadSession
from .tables import aliases, checkpoints, metrics

Kind = Literal["version", "latest", "best", "min", "max", "epoch", "step", "alias"]

_VERSION = re.compile(r"v?([0-9]+)", re.ASCII)
_RANK = re.compile(r"(min|max):(.+)", re.DOTALL)
_COUNT = re.compile(r"(epoch|step):(-?[0-9]+)", re.ASCII)
_ALIAS = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Ref:
    """A parsed ref. ``name`` is the metric (or ``loss``), or the alias; ``number`` is the version, epoch or step."""

    kind: Kind
    name: str = ""
    number: int = 0


def parse_ref(text: str) -> Ref:
    """Parse a ref. Raises InvalidRequest, code ``bad-ref``, for a text of no known form."""
    if match := _VERSION.fullmatch(text):
        return Ref("version", number=_number(match[1]))
    if text in {"latest", "best"}:
        return Ref("latest" if text == "latest" else "best")
    if match := _RANK.fullmatch(text):
        return Ref("min" if match[1] == "min" else "max", name=check_text(match[2], "a metric's name"))
    if match := _COUNT.fullmatch(text):
        return Ref("epoch" if match[1] == "epoch" else "step", number=_number(match[2]))
    if _ALIAS.fullmatch(text):
        return Ref("alias", name=text)
    raise InvalidRequest(
        f"{text!r} is not a valid ref; use a version number (12 or v12), latest, best, min:NAME, max:NAME, epoch:N, "
        "step:N or an alias",
        code="bad-ref",
    )


def is_reserved(name: str) -> bool:
    """Tell whether ``name`` cannot be an alias: it is not of an alias's form, or a ref of another kind."""
    return _ALIAS.fullmatch(name) is None or parse_ref(name).kind != "alias"


def _number(digits: str) -> int:
    """Convert ``digits``, limited to 64 bits: no checkpoint has a larger number, and no database can hold one."""
    return max(-MAX_INTEGER, min(int(digits), MAX_INTEGER)) if len(digits) <= 20 else MAX_INTEGER


def parse_best(text: str) -> Ref:
    """Parse the meaning of ``best``: ``min:NAME`` or ``max:NAME``. Raises InvalidRequest, code ``bad-best``."""
    match = _RANK.fullmatch(text)
    if match is None or len(match[2]) > MAX_NAME_LENGTH:
        detail = f"best must be min:NAME or max:NAME, where NAME is loss or a metric, not {text[:MAX_NAME_LENGTH]!r}"
        raise InvalidRequest(detail, code="bad-best")
    return parse_ref(text)


def version_of(s: ReadSession, ref: Ref, model_id: int, run: str | None) -> int | None:
    """The version that ``ref`` (not ``best``) picks, by one index look-up, or None."""
    statement = _picks(ref.kind, by_metric=ref.kind in {"min", "max"} and ref.name != "loss", in_run=run is not None)
    version: int | None = s.select(statement, model_id=model_id, name=ref.name, number=ref.number, run=run).scalar()
    return version


@cache
def _picks(kind: Kind, *, by_metric: bool, in_run: bool) -> Select[int]:
    column: ColumnElement[float]
    if kind == "alias":
        return _of_alias(in_run=in_run)
    if by_metric:
        table, column = metrics, metrics.c.value
        scope = [metrics.c.model_id == bindparam("model_id"), metrics.c.name == bindparam("name")]
    else:
        table = checkpoints
        scope = [checkpoints.c.model_id == bindparam("model_id"), checkpoints.c.version.is_not(None)]
        column = checkpoints.c.version if kind == "latest" else checkpoints.c["loss"]
    if in_run:
        scope.append(table.c.run == bindparam("run"))
    match kind:
        case "version" | "epoch" | "step":
            scope.append(table.c[kind] == bindparam("number"))
        case "min" | "max":
            # Not "order by value, version desc": no single index serves it, and there may be many ties.
            extreme = func.min(column) if kind == "min" else func.max(column)
            scope.append(column == select(extreme).where(*scope).scalar_subquery())
    return select(table.c.version).where(*scope).order_by(table.c.version.desc()).limit(1)


def _of_alias(*, in_run: bool) -> Select[int]:
    statement = select(aliases.c.version).where(
        aliases.c.model_id == bindparam("model_id"), aliases.c.name == bindparam("name")
    )
    if not in_run:
        return statement
    of_its_checkpoint = (
        checkpoints.c.model_id == aliases.c.model_id,
        checkpoints.c.version == aliases.c.version,
        checkpoints.c.run == bindparam("run"),
    )
    return statement.where(select(checkpoints.c.id).where(*of_its_checkpoint).exists())
