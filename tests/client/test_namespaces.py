"""Namespaces and quotas from Python."""

from pathlib import Path

import pytest
import torch

from stateroom import Client, InvalidRequest, Namespace, NotFound, QuotaExceeded, SpooledCheckpoint, StateroomWarning
from tests.support.server import Server

STATE = {"w": torch.ones(10)}


@pytest.fixture
def namespace(model_name: str) -> str:
    return model_name.rpartition("/")[2][-100:].lstrip("-")


def test_a_quota_is_set_read_and_removed(client: Client, namespace: str) -> None:
    with pytest.raises(NotFound, match="holds nothing, and has no quota"):
        client.namespace(namespace)
    saved = client.model(f"{namespace}/m").save(STATE)
    found = client.namespace(namespace)
    assert found == Namespace(namespace, None, None, 1, 1, saved.bytes, found.stored_bytes)
    assert 0 < found.stored_bytes <= saved.new_bytes
    assert found in list(client.namespaces())
    assert client.set_quota(namespace, bytes="1.5 GB").quota_bytes == 1_500_000_000
    limited = client.set_quota(namespace, checkpoints=1)
    assert (limited.quota_bytes, limited.quota_checkpoints) == (1_500_000_000, 1)
    with pytest.raises(QuotaExceeded, match=r"its quota is 1\. Delete checkpoints"):
        client.model(f"{namespace}/m").save(STATE)
    for wrong in ({"bytes": "much"}, {"bytes": -1}, {"checkpoints": 1.5}, {"checkpoints": -1}):
        with pytest.raises(InvalidRequest):
            client.set_quota(namespace, **wrong)
    assert client.set_quota(namespace, bytes=None, checkpoints=None) == found


def test_a_save_over_a_quota_waits_and_keeps_no_other_waiting(
    server: Server, client: Client, namespace: str, tmp_path: Path
) -> None:
    client.set_quota(namespace, checkpoints=0)
    with Client(server.base_url, spool_dir=tmp_path / "spool") as spooling:
        with pytest.warns(StateroomWarning, match=r"waits in .*its quota is 0"):
            assert isinstance(spooling.model(f"{namespace}/m").save(STATE), SpooledCheckpoint)
        assert spooling.model(f"{namespace}-other/m").save(STATE).version == 1
        with pytest.raises(QuotaExceeded):
            spooling.send_spooled()
        client.set_quota(namespace, checkpoints=None)
        assert [str(each) for each in spooling.send_spooled()] == [f"{namespace}/m@1"]
