"""What the tests of servers with a store in S3 share: commands of the server, and bytes to store."""

import json
import os
from typing import Any

import torch

from tests.support.commands import run
from tests.support.s3 import S3
from tests.support.server import Server

MIB = 1024 * 1024


def noise(mebibytes: float) -> torch.Tensor:
    """Return random bytes, which nobody has stored before."""
    return torch.frombuffer(bytearray(os.urandom(int(mebibytes * MIB))), dtype=torch.uint8)


def command(server: Server, s3: S3, *words: str) -> Any:
    """Run a command of the server on its data dir and its store, and return the JSON that it prints."""
    done = run(*words, "--json", "--data-dir", str(server.data_dir), *server.args[:2], **s3.environment)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)
