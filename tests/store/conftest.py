"""Shared by the tests of stores: claims with their asserts explained, and a device with almost no room."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.devices import mounted_tmpfs

pytest.register_assert_rewrite("tests.store.conformance")


@pytest.fixture
def small_device(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 8 MiB of its own."""
    with mounted_tmpfs(tmp_path / "small", 8) as folder:
        yield folder
