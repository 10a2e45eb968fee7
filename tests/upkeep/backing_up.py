"""Helpers of the tests of backups."""

from pathlib import Path

from app.upkeep.backup import Made, Progress, make_backup
from app.upkeep.backup_folder import BackupFolder
from tests.ingest.workplace import Workplace, torch_file, weights

FILES = {seed: torch_file({"epoch": seed, "w": weights(seed, 0.3)}) for seed in (1, 2, 3)}


def back_up(place: Workplace, folder: BackupFolder, keep: int = 1, progress: Progress | None = None) -> Made:
    return make_backup(place.catalog, place.store, folder, keep, progress or Progress())


def upload_all(place: Workplace) -> None:
    for data in FILES.values():
        place.upload(data)


def flip(folder: Path, pack: str) -> None:
    """Flip a bit of a pack in the store at ``folder``; once more, and it is as it was."""
    path = next(folder.rglob(f"{pack}.pack"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
