"""A store that fails in every way, now and then or for a while: what was acknowledged is there, and right."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from stateroom import Client
from tests.conftest import StartServer
from tests.differential.equality import equal
from tests.functional.busy_clients import busy_clients, findings
from tests.functional.on_s3 import command, noise
from tests.support.measure import long, measure
from tests.support.s3 import S3
from tests.support.server import Server
from tests.support.store_proxy import KINDS, OUTAGES, Faults, spoiling
from tests.support.waiting import LONG_ENOUGH, assert_soon, until_ready

MIB = 1024 * 1024


@pytest.fixture
def spoiled(fresh_server: StartServer, s3: S3) -> Iterator[tuple[Server, Faults]]:
    """A server whose store fails as it is told."""
    with spoiling(s3.endpoint) as (endpoint, faults):
        env = {**s3.environment, "STATEROOM_STORE_ENDPOINT": endpoint}
        yield fresh_server("--store-url", s3.new_url(), env=env), faults


def test_nothing_that_was_acknowledged_is_lost_and_nothing_wrong_is_served(
    spoiled: tuple[Server, Faults], s3: S3, tmp_path: Path
) -> None:
    server, faults = spoiled
    kept: dict[int, object] = {}
    with Client(server.base_url, progress=False, timeout=LONG_ENOUGH) as client:
        model = client.model("a/b")
        faults.every = 4
        while len(kept) < 4 or set(faults.spoiled) < set(KINDS):
            obj = {"epoch": len(kept), "w": noise(18), "v": noise(0.2)}
            kept[model.save(obj).version] = obj
            torch.save(obj, tmp_path / "obj.pt")
            kept[model.upload(tmp_path / "obj.pt").version] = obj
            for version, saved in kept.items():
                assert equal(model.load(version), saved)
        model.delete(1)
        faults.every = 0
        for version, saved in kept.items():
            if version > 1:
                assert equal(model.load(version), saved)
    assert command(server, s3, "fsck", "--read-data")["findings"] == []


@long
@pytest.mark.parametrize("kind", measure(["hang"], OUTAGES))
def test_clients_come_through_an_outage_of_the_store(spoiled: tuple[Server, Faults], s3: S3, kind: str) -> None:
    """A short one, and with ``make stress`` each kind for minutes; single calls fail in all the other ways above."""
    server, faults = spoiled
    with server.client() as http, busy_clients(server) as clients:
        until_ready(http)
        faults.begin_outage(kind)
        began = time.monotonic()
        assert http.get("/readyz").status_code == 503
        assert_soon(lambda: faults.refused > 10 and time.monotonic() - began > measure(0, 150))
        assert http.get("/readyz").status_code == 503
        faults.end_outage()
        until_ready(http)
        clients.go_on()
    assert findings(server, s3.environment) == []
