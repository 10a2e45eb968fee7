"""A catalog for sweeps: checkpoints that share no blob, in packs of their own."""

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
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
from app.catalog.tables import blobs, checkpoint_blobs, checkpoints, models, namespaces, packs
from benchmarks.large_catalog import AT_ONCE, COPIED, PRIME, RUNS, fill, numbers_from, set_counters, spread


def add_own(url: str, count: int, name: str = "own") -> None:
    """Add a model of ``count`` checkpoints in 20 runs that share no blob: each has a pack of its own, with its
    manifest, its frame and a storage. The bytes are not there, so ``fsck`` complains: this is for sweeps.
    """
    engine = create_engine(parse_url(url))
    is_sqlite = engine.dialect.name == "sqlite"
    with engine.begin() as connection:
        one = connection.execute(select(checkpoints).where(checkpoints.c.version == 1).limit(1)).mappings().one()
        namespace = connection.execute(select(models.c.namespace).where(models.c.id == one["model_id"])).scalar_one()
        last = {
            t.name: connection.execute(select(func.max(t.c.id))).scalar_one()
            for t in (models, checkpoints, packs, blobs)
        }
        model = {"namespace": namespace, "name": name, "best": "min:loss", "next_version": count + 1, "checkpoints": 0}
        connection.execute(insert(models), [{"id": last["models"] + 1, **model, "created_at": 0}])
        for start in range(1, count + 1, AT_ONCE):
            numbers = numbers_from(start, min(start + AT_ONCE, count + 1))
            v, all_ = numbers.c.v, select().select_from(numbers)
            pack, checkpoint = v + last["packs"], v + last["checkpoints"]
            area = literal("a" * 20) + func.substr(cast(v + 10**12, Text), 2)
            fill(
                connection,
                packs,
                {"id": pack, "name": area, "size": 30_000, "state": "sealed", "lease_until": 0},
                all_,
            )
            copied = {key: value for key, value in one.items() if key not in COPIED and value is not None}
            as_json = {key: json_text(value) for key, value in copied.items() if isinstance(value, list)}
            own = {
                "model_id": last["models"] + 1,
                "version": v,
                "epoch": v,
                "loss": spread(v, PRIME),
                "new_bytes": 30_000,
            }
            run = literal("run-") + cast(v % RUNS, Text)
            fill(
                connection,
                checkpoints,
                {
                    **copied,
                    **as_json,
                    **own,
                    "id": checkpoint,
                    "run": run,
                    "created_at": literal(int(str(one["created_at"]))) + v,
                },
                all_,
            )
            for place in range(3):
                blob = v * 3 + last["blobs"] + place
                key = literal(f"{name} {place} ") + cast(v, Text)
                block = func.randomblob(32) if is_sqlite else func.sha256(func.convert_to(key, "UTF8"))
                digest = literal("blake3:") + (
                    func.hex(func.randomblob(32)) if is_sqlite else func.encode(block, "hex")
                )
                row = {"namespace": namespace, "digest": digest, "pack_id": pack, "offset": 10_000 * place}
                fill(connection, blobs, {"id": blob, **row, "length": 10_000, "crc32": 0, "blocks": block}, all_)
                fill(connection, checkpoint_blobs, {"checkpoint_id": checkpoint, "blob_id": blob}, all_)
        b = blobs.c
        stored = select(cast(func.sum(b.length), BigInteger)).where(b.namespace == namespace).scalar_subquery()
        connection.execute(update(namespaces).values(stored_bytes=stored))
        connection.exec_driver_sql("ANALYZE")
        set_counters(connection)
    engine.dispose()


def json_text(value: list[Any]) -> ColumnElement[Any]:
    return literal_column("'" + json.dumps(value).replace("'", "''") + "'")
