"""Aliases of a model's checkpoints. Each change is kept, so that an alias can go back."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, and_, bindparam, delete, func, select, update

from ..errors import Conflict, InvalidRequest, NotFound
from ..values.alias import Alias, AliasChange
from ..values.checkpoint import ModelName
from ..values.event import EventKind
from .checkpoints import is_in_trash, resolve
from .events import record
from .models import existing_model, get_model
from .page import Page, check_limit, open_cursor, seal_cursor
from .refs import is_reserved, parse_ref
from .rows import check_text, from_microseconds, to_microseconds
from .session import ReadSession, WriteSession
from .tables import alias_changes, aliases, checkpoints

MAX_ALIASES = 1_000
"""Most aliases of one model."""

MAX_NAME_LENGTH = 128
MAX_NOTE_LENGTH = 1_000

_ALIASES = (
    select(aliases.c.name, aliases.c.version, *(c for c in alias_changes.c if c.name not in {"name", "version"}))
    .join(
        alias_changes,
        and_(
            alias_changes.c.model_id == aliases.c.model_id,
            alias_changes.c.name == aliases.c.name,
            alias_changes.c.revision == aliases.c.revision,
        ),
    )
    .where(aliases.c.model_id == bindparam("model_id"))
    .order_by(aliases.c.name)
)
_ALIAS = _ALIASES.where(aliases.c.name == bindparam("alias"))
_COUNT = select(func.count()).select_from(aliases).where(aliases.c.model_id == bindparam("model_id"))
_LAST_REVISION = select(func.max(alias_changes.c.revision)).where(
    alias_changes.c.model_id == bindparam("model_id"), alias_changes.c.name == bindparam("alias")
)
_VERSION = select(checkpoints.c.version).where(
    checkpoints.c.model_id == bindparam("model_id"), checkpoints.c.version == bindparam("version")
)


@dataclass(frozen=True, slots=True)
class _State:
    """The state that a change leaves an alias in; ``version`` is None if the change removes the alias."""

    version: int | None
    previous_version: int | None
    protected: bool
    note: str | None


def check_alias(name: str) -> str:
    """Return ``name``. Raises InvalidRequest, code ``bad-alias``, for a name that no alias can have."""
    if len(name) > MAX_NAME_LENGTH or is_reserved(name):
        raise InvalidRequest(
            f"{name[:MAX_NAME_LENGTH]!r} is not a valid alias: use up to {MAX_NAME_LENGTH} letters, digits, '_', '.' "
            "or '-', beginning with a letter or '_'; latest, best and names like v12 have a meaning already",
            code="bad-alias",
        )
    return name


def list_aliases(s: ReadSession, model: ModelName) -> tuple[Alias, ...]:
    """All aliases of a model, by name. Raises NotFound, code ``model-not-found``."""
    return tuple(map(_alias, s.select(_ALIASES, model_id=get_model(s, model).id)))


def find_alias(s: ReadSession, model: ModelName, name: str) -> Alias | None:
    """Return the alias, None if there is none.

    Raises InvalidRequest (``bad-alias``) and NotFound (``model-not-found``).
    """
    return _find(s, get_model(s, model).id, check_alias(name))


def get_alias(s: ReadSession, model: ModelName, name: str) -> Alias:
    """Return the alias. Raises as ``find_alias``, and NotFound, code ``alias-not-found``."""
    return _known(s, model, name)[1]


def _known(s: ReadSession, model: ModelName, name: str) -> tuple[int, Alias]:
    """Return the id of the model, and the alias. Raises as ``get_alias``."""
    model_id = get_model(s, model).id
    found = _find(s, model_id, check_alias(name))
    if found is None:
        known = [alias.name for alias in list_aliases(s, model)[:6]]
        there = f"it has {', '.join(known[:5])}{', ...' if known[5:] else ''}" if known else "it has none"
        raise NotFound(f"{model} has no alias {name!r}; {there}", code="alias-not-found")
    return model_id, found


def find_target(s: ReadSession, model: ModelName, ref: str, run: str | None) -> int:
    """The version that ``ref`` picks now, for an alias to move to. Raises as ``resolve``, and Conflict, code
    ``checkpoint-trashed``, for one in the trash.
    """
    try:
        return resolve(s, model, ref, run).version
    except NotFound:
        parsed = parse_ref(ref)
        if parsed.kind == "version" and is_in_trash(s, existing_model(s, model), parsed.number):
            detail = f"{model}@{parsed.number} is in the trash: restore it first"
            raise Conflict(detail, code="checkpoint-trashed") from None
        raise


def move(w: WriteSession, model: ModelName, name: str, version: int, note: str | None, by: str | None) -> Alias:
    """Point the alias at an existing ``version``; make it if there is none. Without a new version or note, nothing
    changes.

    Raises InvalidRequest (``bad-alias``, ``bad-text``), NotFound (``model-not-found``) and Conflict
    (``too-many-aliases``).
    """
    if note is not None and len(check_text(note, "note")) > MAX_NOTE_LENGTH:
        raise InvalidRequest(f"note has {len(note):,} characters; at most {MAX_NOTE_LENGTH:,}", code="bad-text")
    model_id = get_model(w, model).id
    now = _find(w, model_id, check_alias(name))
    if now is None:
        if int(w.select(_COUNT, model_id=model_id).scalar_one()) >= MAX_ALIASES:
            detail = f"{model} has {MAX_ALIASES:,} aliases, the most that a model may have; remove one first"
            raise Conflict(detail, code="too-many-aliases")
        return _move(w, model, model_id, name, _State(version, None, False, note), by)
    if now.version == version and note in {None, now.note}:
        return now
    if now.version == version:
        record(w, EventKind.ALIAS_CHANGED, model, version, alias=name)
        return _change(w, model_id, name, _State(version, now.previous_version, now.protected, note), by)
    return _move(w, model, model_id, name, _State(version, now.version, now.protected, note), by)


def roll_back(w: WriteSession, model: ModelName, name: str, by: str | None) -> Alias:
    """Point the alias at its previous version again; a second time, at the one it came from.

    Raises as ``get_alias``; Conflict, code ``no-previous-version``, if there is none or it was deleted.
    """
    model_id, now = _known(w, model, name)
    previous = now.previous_version
    if previous is None:
        raise Conflict(f"{name} of {model} has meant {model}@{now.version} from the start", code="no-previous-version")
    if w.select(_VERSION, model_id=model_id, version=previous).first() is None:
        raise Conflict(
            f"{name} of {model} meant {model}@{previous} before, which was deleted; move it to another version",
            code="no-previous-version",
        )
    state = _State(previous, now.version, now.protected, f"rollback from {now.version}")
    return _move(w, model, model_id, name, state, by)


def protect(w: WriteSession, model: ModelName, name: str, protected: bool, by: str | None) -> Alias:
    """Set whether moving and removing the alias takes the scope admin. Raises as ``get_alias``."""
    model_id, now = _known(w, model, name)
    if now.protected == protected:
        return now
    state = _State(now.version, now.previous_version, protected, now.note)
    record(w, EventKind.ALIAS_CHANGED, model, now.version, alias=name, detail={"protected": protected})
    return _change(w, model_id, name, state, by)


def remove(w: WriteSession, model: ModelName, name: str, by: str | None) -> None:
    """Remove the alias; its history stays. Raises as ``get_alias``."""
    model_id, now = _known(w, model, name)
    record(w, EventKind.ALIAS_REMOVED, model, now.version, alias=name)
    _keep(w, model_id, name, _State(None, now.version, False, None), by)
    w.execute(delete(aliases).where(aliases.c.model_id == model_id, aliases.c.name == name))


def history(
    s: ReadSession, model: ModelName, name: str, *, limit: int = 50, cursor: str | None = None
) -> Page[AliasChange]:
    """One page of the changes of an alias, newest first, also of one that was removed.

    Raises InvalidRequest (``bad-alias``, ``bad-limit``, ``bad-cursor``), NotFound (``model-not-found``; and
    ``alias-not-found`` if there never was such an alias).
    """
    model_id = get_model(s, model).id
    listing = f"changes of {check_alias(name)} of {model}"
    c = alias_changes.c
    statement = select(alias_changes).where(c.model_id == model_id, c.name == name).order_by(c.revision.desc())
    if cursor is not None:
        (before,) = open_cursor(cursor, listing, (int,))
        statement = statement.where(c.revision < before)
    rows = s.select(statement.limit(check_limit(limit) + 1)).all()
    if not rows and cursor is None:
        get_alias(s, model, name)  # raises
    items = tuple(map(_of_change, rows[:limit]))
    return Page(items, seal_cursor(listing, [items[-1].revision]) if len(rows) > limit else None)


def _find(s: ReadSession, model_id: int, name: str) -> Alias | None:
    row = s.select(_ALIAS, model_id=model_id, alias=name).first()
    return None if row is None else _alias(row)


def _move(w: WriteSession, model: ModelName, model_id: int, name: str, state: _State, by: str | None) -> Alias:
    """Set the state of an alias that is new or means another version now."""
    detail = {"previous_version": state.previous_version}
    record(w, EventKind.ALIAS_MOVED, model, state.version, alias=name, detail=detail)
    return _change(w, model_id, name, state, by)


def _change(w: WriteSession, model_id: int, name: str, state: _State, by: str | None) -> Alias:
    """Set the state of an alias."""
    row = {"version": state.version, "revision": _keep(w, model_id, name, state, by)}
    here = aliases.c.model_id == model_id, aliases.c.name == name
    if not w.execute(update(aliases).where(*here).values(**row)).rowcount:
        w.insert(aliases, [{"model_id": model_id, "name": name, **row}])
    return _alias(w.select(_ALIAS, model_id=model_id, alias=name).one())


def _keep(w: WriteSession, model_id: int, name: str, state: _State, by: str | None) -> int:
    """Add a state to the history of an alias, and return its revision."""
    revision = int(w.select(_LAST_REVISION, model_id=model_id, alias=name).scalar() or 0) + 1
    key = {"model_id": model_id, "name": name, "revision": revision}
    w.insert(alias_changes, [{**key, **asdict(state), "at": to_microseconds(datetime.now(UTC)), "by": by}])
    return revision


def _alias(row: Row[*tuple[Any, ...]]) -> Alias:
    return Alias(
        name=row.name,
        version=row.version,
        previous_version=row.previous_version,
        revision=row.revision,
        protected=row.protected,
        note=row.note,
        moved_at=from_microseconds(row.at),
        moved_by=row.by,
    )


def _of_change(row: Row[*tuple[Any, ...]]) -> AliasChange:
    return AliasChange(
        revision=row.revision,
        version=row.version,
        previous_version=row.previous_version,
        protected=row.protected,
        note=row.note,
        at=from_microseconds(row.at),
        by=row.by,
    )
