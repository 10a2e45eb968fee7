import time
from pathlib import Path

import pytest

from app.catalog import Catalog, checkpoints, unfinished
from app.catalog.checkpoints import Listing
from app.catalog.commit import BATCH
from tests.catalog.make import MODEL, add, count
from tests.support.measure import long, some
from tests.support.scripts import start_script
from tests.support.waiting import assert_soon

UPLOADS = """
import sys
from app.catalog import Catalog
from app.catalog.commit import BATCH, commit
from tests.catalog.make import begin_pack, digest, new_checkpoint

catalog = Catalog(sys.argv[1])
for i in range(1_000):
    digests = [digest(f"{i} {j}") for j in range(BATCH + 1 if i % 2 else 5)]
    made = commit(catalog, new_checkpoint(epoch=len(digests), blobs=digests), begin_pack(catalog, digests))
    print(made.version, flush=True)
"""


@long
@pytest.mark.parametrize("delay", some([0.03, 0.0, 0.1], 3))
def test_what_was_acknowledged_survives_a_kill_and_what_was_not_is_never_half_there(
    database_url: str, tmp_path: Path, delay: float
):
    printed = tmp_path / "printed"
    process = start_script(UPLOADS, database_url, output=printed)
    try:
        assert_soon(lambda: printed.read_text().count("\n") >= 3)
        time.sleep(delay)  # the kill falls into whatever is going on then
    finally:
        process.kill()
        process.wait()
    acknowledged = [int(line) for line in printed.read_text().split()]

    catalog = Catalog(database_url)
    catalog.migrate()
    unfinished.drop(catalog, None, lambda: None)
    with catalog.read() as s:
        found = checkpoints.list_checkpoints(s, MODEL, Listing(order="version", limit=1000)).items
        references = [
            s._connection.exec_driver_sql(
                f"SELECT count(*) FROM checkpoint_blobs WHERE checkpoint_id = {checkpoint.id}"
            ).scalar_one()
            for checkpoint in found
        ]
    versions = [checkpoint.version for checkpoint in found]
    assert acknowledged == list(range(1, len(acknowledged) + 1))
    assert versions in (acknowledged, [*acknowledged, len(acknowledged) + 1])
    assert references == [checkpoint.epoch for checkpoint in found]
    assert set(references) <= {5, BATCH + 1}
    assert count(catalog, "checkpoints") == len(found)
    assert count(catalog, "checkpoint_blobs") == sum(references)
    assert add(catalog).version == len(found) + 1
    catalog.close()
