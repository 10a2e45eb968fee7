"""The order in which test files run, and what each of the processes takes at a time."""

import pytest
from xdist.scheduler import LoadFileScheduling

LONGEST = (
    "tests/pages/",
    "tests/test_wheels.py",
    "tests/test_memory.py",
    "tests/api/test_tokens.py",
    "tests/functional/test_slow_clients.py",
    "tests/test_workers.py",
    "tests/stress/",
    "tests/hostile/",
    "tests/api/test_body_reader.py",
    "tests/api/test_schemathesis.py",
    "tests/client/test_cli.py",
    "tests/client/test_dcp_writer.py",
    "tests/client/test_fsspec_saves.py",
    "tests/client/test_parallel.py",
    "tests/client/test_save_in_parts.py",
    "tests/functional/test_links.py",
    "tests/functional/test_database_outages.py",
    "tests/functional/test_replica_outages.py",
    "tests/functional/test_failing_store.py",
    "tests/upkeep/",
)
"""The files and folders that take longest. They come first, so that no process is still busy when the others end."""

TOGETHER = ("tests/pages/",)
"""Folders whose tests share a fixture that is expensive: one process takes all of them."""


def by_length(item: pytest.Item) -> int:
    """Return the place of a test's file: a key to sort by."""
    return next((place for place, start in enumerate(LONGEST) if item.nodeid.startswith(start)), len(LONGEST))


class Scheduler(LoadFileScheduling):
    """Gives a process one file at a time, or a folder of TOGETHER."""

    def _split_scope(self, nodeid: str) -> str:
        folder = next((folder for folder in TOGETHER if nodeid.startswith(folder)), None)
        return folder or super()._split_scope(nodeid)
