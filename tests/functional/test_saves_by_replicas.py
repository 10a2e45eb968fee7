"""A save by name whose processes each know another replica, on PostgreSQL and an object store."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from stateroom import Client
from stateroom.integrations.fsspec import StateroomFileSystem
from tests.support.postgres import Postgres
from tests.support.processes import run_processes
from tests.support.replicas import COUNT, separate_replicas
from tests.support.s3 import S3

FOLDER = "stateroom://shared/net/run/sharded"


def state_of(number: float) -> dict[str, Any]:
    rows = torch.arange(60_000.0).reshape(60, 1_000) + number
    return {"rows": distribute_tensor(rows, init_device_mesh("cpu", (COUNT,)), [Shard(0)]), "epoch": int(number)}


@pytest.mark.filterwarnings("ignore:Detected an existing checkpoint:UserWarning")
def test_each_process_may_write_to_another_replica(postgres: Postgres, s3: S3, tmp_path: Path) -> None:
    with separate_replicas(tmp_path, postgres, s3) as replicas:

        def work(rank: int) -> None:
            os.environ["STATEROOM_URL"] = replicas[rank].base_url  # of this forked process
            StateroomFileSystem.clear_instance_cache()
            for number in (1.0, 2.0):
                dcp.save(state_of(number), checkpoint_id=FOLDER)
            state = state_of(-1)
            dcp.load(state, checkpoint_id=FOLDER)
            assert torch.equal(state["rows"].full_tensor(), state_of(2.0)["rows"].full_tensor())

        run_processes(COUNT, tmp_path, work)
        for replica in replicas:
            with Client(replica.base_url) as client:
                found = client.model("shared/net").load("latest")
                assert found["epoch"] == 2
                assert torch.equal(found["rows"], torch.arange(60_000.0).reshape(60, 1_000) + 2)
