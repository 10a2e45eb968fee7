"""PostgreSQL plans a frequent statement once, for a model of average size; a large model must not suffer from that.

Where one model has most checkpoints and hundreds have a few, such a plan reads all rows of the model if it counts on
few. So the rows are counted that a question reads by the plan for the average.
"""

from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest

from app.catalog import Catalog, ReadSession, blobs, checkpoints, history, lineage
from app.catalog.commit import commit
from app.catalog.listing import Filter, Listing, list_checkpoints
from benchmarks.large_catalog import enlarge
from tests.catalog.make import MODEL, begin_pack, digest, new_checkpoint
from tests.catalog.questions import READS

LARGE, OTHERS = 6_000, 400
"""Versions of the large model, and blobs of its namespace; other models with two checkpoints each, and other namespaces
with two blobs."""

PAGE = 20
HALF = Filter("epoch", "ge", str(LARGE // 2)), Filter("metric.acc", "ge", "0.5")

LIMIT = 2_500
"""Rows of a table that a question may read: two filters look up a thousand each. The large model has twice as many."""

QUESTIONS: dict[str, Callable[[ReadSession], object]] = {
    **{name: question for name, question in READS.items() if name not in {"the overview", "packs by name"}},
    **{
        ref: lambda s, ref=ref: checkpoints.resolve(s, MODEL, ref)
        for ref in ("latest", "best", "max:acc", "prod", "4000", "epoch:5000")
    },
    "the best of a run": lambda s: checkpoints.resolve(s, MODEL, "best", "run-7"),
    "a page by loss": lambda s: list_checkpoints(s, MODEL, Listing(order="loss", limit=PAGE)),
    "a page by two conditions": lambda s: list_checkpoints(s, MODEL, Listing(filters=HALF, limit=PAGE)),
    "a page of the history": lambda s: history.history(s, MODEL, limit=PAGE),
    "the ancestors": lambda s: lineage.ancestors(s, checkpoints.resolve(s, MODEL, "4000"), None),
    "known blobs": lambda s: blobs.known(s, MODEL.namespace, [digest("manifest"), digest("none")]),
}

BLOBS = """
INSERT INTO blobs (namespace, digest, pack_id, "offset", length, crc32, blocks)
SELECT {namespace}, 'blake3:' || repeat(md5(({number})::text), 2), (SELECT min(id) FROM packs), 0, 1, 0, ''
FROM {numbers}
"""


@pytest.fixture(scope="module")
def skewed(request: pytest.FixtureRequest) -> Iterator[Catalog]:
    """A catalog with one large model and namespace, and with many small ones, of which PostgreSQL has statistics."""
    with request.getfixturevalue("postgres").borrowed() as url, closing(Catalog(url, durable=False)) as catalog:
        first = {"run": "run-1", "epoch": 1, "step": 1, "loss": 1.0, "metrics": {"acc": 1.0}}
        held = [digest("manifest")]
        commit(catalog, new_checkpoint(blobs=held, **first), begin_pack(catalog, held))
        enlarge(url, LARGE, removed=True, others=OTHERS, of_each=2)
        large, small = (f"generate_series(1, {count}) AS n" for count in (LARGE, 2 * OTHERS))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(BLOBS.format(namespace=f"'{MODEL.namespace}'", number="n", numbers=large))
            connection.execute(BLOBS.format(namespace="'other-' || n / 2", number="-n", numbers=small))
            connection.execute("VACUUM ANALYZE")
        yield catalog


READ = "SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables"


def rows_read(catalog: Catalog, question: Callable[[ReadSession], object]) -> dict[str, int]:
    """The rows of each table that a question reads, where each statement has a plan for parameters not known yet."""
    with catalog.read() as s:
        connection = s._connection.connection.dbapi_connection
        connection.prepare_threshold = 0
        s._connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
        before = dict(map(tuple, s._connection.exec_driver_sql(READ)))
        question(s)
        after = dict(map(tuple, s._connection.exec_driver_sql(READ)))
    return {table: after[table] - before.get(table, 0) for table in after}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_about_a_large_model_reads_few_of_its_rows(skewed: Catalog, question: str) -> None:
    read = rows_read(skewed, QUESTIONS[question])
    assert not {table: count for table, count in read.items() if count > LIMIT}, read
