"""Commands of the server on a store in S3."""

import json
from typing import Any

from tests.support.commands import run
from tests.support.s3 import S3
from tests.support.server import Server


def command(server: Server, s3: S3, *words: str) -> Any:
    """Run a command of the server on its data dir and its store, and return the JSON that it prints."""
    done = run(*words, "--json", "--data-dir", str(server.data_dir), *server.args[:2], **s3.environment)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)
