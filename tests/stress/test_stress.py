"""Short versions of the tests of ``make stress``."""

from pathlib import Path

import pytest

from tests.stress import kills, mixed
from tests.support.measure import long, measure, some
from tests.support.waiting import LONG_ENOUGH


@long
@pytest.mark.parametrize(("database", "servers"), some([("postgresql", 2), ("postgresql", 1), ("sqlite", 1)], 3))
def test_whatever_comes_and_goes_while_it_is_swept_is_never_lost_and_never_wrong(
    request: pytest.FixtureRequest, tmp_path: Path, database: str, servers: int
):
    url = request.getfixturevalue("postgres").database() if database == "postgresql" else None
    counts = mixed.run(tmp_path, operations=measure(60, 600), database_url=url, servers=servers)
    assert counts["sweeps"] > measure(0, 3)
    assert counts["packs swept"] > measure(0, 10)


@long
def test_a_server_that_is_killed_at_any_moment_has_what_it_acknowledged_and_nothing_by_halves(tmp_path: Path):
    count = measure(2, 8)
    assert kills.run(tmp_path, kills=count, ready_within=LONG_ENOUGH)["kills"] == count
