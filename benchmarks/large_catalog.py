"""Catalogs of up to a million checkpoints, for benchmarks.

The first checkpoints are real uploads. The others are rows as repeated uploads of the same files would have written
them: each refers to the blobs of one of the first, and has a version, run, epoch, step, loss, metric, tag, parent and
event of its own. ``enlarge`` inserts them in SQL, some 20,000 a second, because a million uploads would take hours. The
counters follow, and ``fsck`` finds nothing wrong.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Double,
    Select,
    Table,
    Text,
    cast,
    create_engine,
    func,
    insert,
    literal,
    literal_column,
    select,
    update,
)

from app.catalog.dialect import parse_url
from app.catalog.tables import (
    alias_changes,
    aliases,
    checkpoint_blobs,
    checkpoints,
    events,
    lineage,
    metrics,
    models,
    namespaces,
    removed_checkpoints,
    runs,
    tags,
)
from benchmarks.wire import Connection as Http
from tests.support.server import Server

MODEL = "/v1/models/bench/many"
RUNS = 20
AT_ONCE = 100_000
GONE = 10
"""One version in this many of a model with removed checkpoints was removed and purged; only the history has it."""

FAMILY = 1_000
"""Versions between two that have no parent; the others have one, the version before theirs in their run."""

PRIME, _SIZE = 7_919, 1_000_003  # v * PRIME % _SIZE takes each value below _SIZE once
_EMPTY: ColumnElement[Any] = literal_column("'{}'")
COPIED = {
    "id", "model_id", "version", "run", "epoch", "step", "loss", "loss_nonfinite", "new_bytes", "created_at", "slot"
}  # fmt: skip


def upload(server: Server, path: Path, count: int = 1) -> None:
    """Upload the first ``count`` checkpoints of the model; ``path`` is a file to write them to."""
    with Http(server.base_url) as http:
        for number in range(1, count + 1):
            file = io.BytesIO()
            torch.save({"weight": torch.arange(4096.0) + number}, file)
            path.write_bytes(file.getvalue())
            numbers = f"epoch={number}&step={number * 100}&loss=0.5&metric.acc=0.5"
            http.put(f"{MODEL}/checkpoints?{numbers}&tag.commit=c{number}&run=run-{number % RUNS}", path)


@dataclass(frozen=True, slots=True)
class _Source:
    """The real checkpoints of a model, numbered from 0."""

    model_id: int
    namespace: str
    name: str
    count: int
    first_id: int
    """First free id of a checkpoint."""

    @property
    def rows(self) -> Any:
        c = checkpoints.c
        place = (func.row_number().over(order_by=c.version) - 1).label("place")
        return select(place, checkpoints).where(c.model_id == self.model_id, c.version <= self.count).subquery()


def enlarge(url: str, count: int, *, removed: bool = False, others: int = 0, of_each: int = 0) -> None:
    """Add versions of the model up to ``count``, the alias ``prod`` of its first version, and ``others`` more models
    with ``of_each`` checkpoints. With ``removed``, one version in GONE is a removed one.
    """
    engine = create_engine(parse_url(url))
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA cache_size = -500000")
            connection.exec_driver_sql("PRAGMA synchronous = OFF")
            connection.commit()
        with connection.begin():
            source = _source(connection)
            _alias(connection, source)
            for start in range(source.count + 1, count + 1, AT_ONCE):
                _add(connection, source, numbers_from(start, min(start + AT_ONCE, count + 1)), removed=removed)
            if others:
                _add_others(connection, source, count, others, of_each)
            connection.exec_driver_sql("ANALYZE")  # PostgreSQL would count by the plans for empty tables
            set_counters(connection)
    engine.dispose()


def is_there(version: int) -> bool:
    """Tell whether a version of a model with removed checkpoints is visible, if it is none of the real uploads."""
    return version % GONE != GONE - 1


def _source(connection: Connection) -> _Source:
    row = connection.execute(select(models)).mappings().one()
    last = connection.execute(select(func.max(checkpoints.c.id))).scalar_one()
    return _Source(row["id"], row["namespace"], row["name"], row["next_version"] - 1, last + 1)


def numbers_from(start: int, stop: int, name: str = "numbers") -> Any:
    """A column ``v`` of the numbers from ``start`` to ``stop - 1``."""
    numbers = select(cast(literal(start), BigInteger).label("v")).cte(name, recursive=True)
    return numbers.union_all(select(numbers.c.v + 1).where(numbers.c.v < stop - 1))


def _alias(connection: Connection, source: _Source) -> None:
    prod = {"model_id": source.model_id, "name": "prod", "version": 1, "revision": 1}
    connection.execute(insert(alias_changes), [{**prod, "protected": False, "at": 0}])
    connection.execute(insert(aliases), [prod])


def spread(v: ColumnElement[int], prime: int) -> ColumnElement[Any]:
    return cast(v * prime % _SIZE, Double) / float(_SIZE)


def fill(connection: Connection, table: Table, values: dict[str, Any], statement: Select[Any]) -> None:
    labelled = [literal(value) if isinstance(value, int | str) else value for value in values.values()]
    connection.execute(insert(table).from_select(list(values), statement.add_columns(*labelled)))


def _add(connection: Connection, source: _Source, numbers: Any, *, removed: bool) -> None:
    v, one = numbers.c.v, source.rows
    run = literal("run-") + cast(v % RUNS, Text)
    id_ = v + (source.first_id - source.count - 1)
    of_all = select().select_from(numbers).join(one, one.c.place == v % source.count)
    there = of_all.where(v % GONE != GONE - 1) if removed else of_all
    numbers_of = {"run": run, "epoch": v, "step": v * 100, "loss": spread(v, PRIME)}
    created = one.c.created_at + v
    copied = {column.name: one.c[column.name] for column in checkpoints.c if column.name not in COPIED}
    key = {"model_id": source.model_id, "version": v}
    own = {"id": id_, **key, **numbers_of, "new_bytes": 0, "created_at": created}
    fill(connection, checkpoints, {**own, **copied}, there)
    fill(connection, metrics, {**key, "name": "acc", "run": run, "value": spread(v, 104_729)}, there)
    fill(connection, tags, {**key, "name": "commit", "run": run, "value": literal("c") + cast(v % 1000, Text)}, there)
    c = checkpoint_blobs.c
    fill(
        connection,
        checkpoint_blobs,
        {"checkpoint_id": id_, "blob_id": c.blob_id},
        there.join(checkpoint_blobs, c.checkpoint_id == one.c.id),
    )
    named = {"namespace": source.namespace, "name": source.name, "version": v}
    parent = {"parent_namespace": source.namespace, "parent_name": source.name, "parent_version": v - RUNS}
    fill(connection, lineage, {**named, "relation": "parent", **parent}, of_all.where(v % FAMILY >= RUNS))
    _add_events(connection, {**named, "at": created, "kind": "checkpoint-created"}, v, of_all)
    if removed:
        # What was purged has left the trash: the numbers stay.
        gone = {"metrics": _EMPTY, "tags": _EMPTY, "removed_at": created, "purge_at": created}
        values = {**key, **numbers_of, "created_at": created, **gone, "reason": "deleted"}
        fill(connection, removed_checkpoints, values, of_all.where(v % GONE == GONE - 1))


def _add_events(connection: Connection, values: dict[str, Any], v: ColumnElement[int], statement: Select[Any]) -> None:
    last = connection.execute(select(func.max(events.c.id))).scalar_one()
    number = last + func.row_number().over(order_by=v)
    fill(connection, events, {"id": number, **values, "detail": _EMPTY}, statement)


def _add_others(connection: Connection, source: _Source, count: int, others: int, of_each: int) -> None:
    """Models ``other-1`` and so on, each with the first real checkpoints, over and over."""
    first = connection.execute(select(func.max(models.c.id))).scalar_one() + 1
    number, version = numbers_from(0, others), numbers_from(1, of_each + 1, "versions")
    made = {"best": "min:loss", "next_version": of_each + 1, "checkpoints": 0, "created_at": 0}
    name = literal("other-") + cast(number.c.v, Text)
    fill(
        connection,
        models,
        {"id": number.c.v + first, "namespace": source.namespace, "name": name, **made},
        select().select_from(number),
    )
    one, v = source.rows, version.c.v
    at = number.c.v * of_each + v
    id_ = at + (source.first_id - source.count - 1 + count)
    copied = {column.name: one.c[column.name] for column in checkpoints.c if column.name not in COPIED}
    numbers_of = {"epoch": v, "step": v * 100, "loss": spread(at, PRIME), "run": literal("run-") + cast(v % 3, Text)}
    key = {"model_id": number.c.v + first, "version": v}
    there = select().select_from(number).join(version, literal(1) == 1).join(one, one.c.place == v % source.count)
    fill(
        connection,
        checkpoints,
        {"id": id_, **key, **numbers_of, "new_bytes": 0, "created_at": one.c.created_at + at, **copied},
        there,
    )
    c = checkpoint_blobs.c
    fill(
        connection,
        checkpoint_blobs,
        {"checkpoint_id": id_, "blob_id": c.blob_id},
        there.join(checkpoint_blobs, c.checkpoint_id == one.c.id),
    )
    named = {"namespace": source.namespace, "name": name, "version": v}
    _add_events(connection, {**named, "at": one.c.created_at + at, "kind": "checkpoint-created"}, at, there)


def set_counters(connection: Connection) -> None:
    """Set all counters to what commits would have made them."""
    c, r = checkpoints.c, removed_checkpoints.c
    its = c.model_id == models.c.id, c.version.is_not(None)

    def of_model(value: ColumnElement[Any]) -> Any:
        return select(cast(func.coalesce(value, 0), BigInteger)).where(*its).scalar_subquery()

    highest = func.greatest if connection.dialect.name == "postgresql" else func.max
    removed = select(func.coalesce(func.max(r.version), 0)).where(r.model_id == models.c.id).scalar_subquery()
    connection.execute(
        update(models).values(
            checkpoints=of_model(func.count()),
            nbytes=of_model(func.sum(c.nbytes)),
            new_bytes=of_model(func.sum(c.new_bytes)),
            next_version=highest(of_model(func.max(c.version)), removed) + 1,
        )
    )
    m = models.c
    connection.execute(
        update(namespaces).values(
            checkpoints=select(cast(func.sum(m.checkpoints), BigInteger)).scalar_subquery(),
            logical_bytes=select(cast(func.sum(m.nbytes), BigInteger)).scalar_subquery(),
        )
    )
    connection.execute(runs.delete())
    live = select(c.model_id, c.version, c.run, literal(1).label("live")).where(c.version.is_not(None))
    ever = live.union_all(select(r.model_id, r.version, r.run, literal(0))).subquery().c
    lowest, latest = func.min(ever.version), func.max(ever.version)
    counted = select(ever.model_id, lowest, ever.run, latest, func.count(), cast(func.sum(ever.live), BigInteger))
    columns = ["model_id", "first", "run", "latest", "checkpoints", "live"]
    connection.execute(insert(runs).from_select(columns, counted.group_by(ever.model_id, ever.run)))
    if connection.dialect.name == "postgresql":
        for table in ("blobs", "checkpoints", "models", "packs"):
            connection.exec_driver_sql(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"
            )
