"""A device with almost no room, for tests that fill it up."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted_tmpfs(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A new file system at ``folder``. Skips the test where mounting is not allowed."""
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    command = [mount or "mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    if mount is None or umount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs needs to be root")
    try:
        yield folder
    finally:
        # Lazily, because what a failed test's traceback holds open must not keep it mounted.
        subprocess.run([umount, "--lazy", str(folder)], check=True)
