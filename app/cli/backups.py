"""Commands that make and restore backups."""

import json
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Config, DatabaseUrl, DataDir, StoreUrl, complain, complaining, read_settings

if TYPE_CHECKING:
    from ..upkeep.backup import Progress
    from ..upkeep.migrate_store import Copied

Folder = Annotated[Path, typer.Argument(help="folder of backups", metavar="FOLDER")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]

SHOWN_EVERY = 0.2
"""Seconds between two changes of the line that shows the progress."""


def backup(
    folder: Folder,
    keep: Annotated[int, typer.Option(min=1, help="backups to keep in the folder, with this one (1)")] = 1,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    store_url: StoreUrl = None,
) -> None:
    """Back up everything into a folder. Servers may be running. Only packs that are not there yet are copied."""
    settings = read_settings(config=config, data_dir=data_dir, database_url=database_url, store_url=store_url)
    from ..maintenance import backup as run  # noqa: PLC0415 - a wrong option is answered before SQLAlchemy is loaded
    from ..upkeep.report import size_as_text  # noqa: PLC0415 - as above

    with complaining(), _Shown("copied") as progress:
        made = run(settings, folder, keep, progress)
    done = made.backup
    if as_json:
        removed = {"removed_backups": made.removed_backups, "removed_packs": made.removed_packs}
        typer.echo(json.dumps({**done.as_json(), **removed}))
    else:
        typer.echo(
            f"backup {done.id}: {done.checkpoints:,} checkpoints of {done.models:,} models; "
            f"{done.packs:,} packs, {size_as_text(done.pack_bytes)}, "
            f"of which {done.new_packs:,} are new, {size_as_text(done.new_bytes)}"
        )
    if made.strange:
        named = ", ".join(made.strange)
        complain(f"no packs were removed, because backups/ holds other names than ids of backups: {named}")
    if done.problems:
        complain(f"{len(done.problems):,} packs are damaged; all else is backed up. See fsck --read-data")
        raise typer.Exit(1)


def restore(
    folder: Folder,
    backup: Annotated[str | None, typer.Option(help="id of the backup (the newest)", metavar="ID")] = None,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    store_url: StoreUrl = None,
) -> None:
    """Restore a backup into an empty database and an empty store. Run it again to go on."""
    settings = read_settings(config=config, data_dir=data_dir, database_url=database_url, store_url=store_url)
    from ..maintenance import restore as run  # noqa: PLC0415 - as above
    from ..upkeep.report import size_as_text  # noqa: PLC0415 - as above

    with complaining(), _Shown("restored") as progress:
        done = run(settings, folder, backup, progress)
    if as_json:
        typer.echo(json.dumps({**done.backup.as_json(), "problems": done.problems}))
    else:
        typer.echo(
            f"restored backup {done.backup.id}: {done.backup.checkpoints:,} checkpoints of {done.backup.models:,} "
            f"models; {done.packs:,} packs, {size_as_text(done.pack_bytes)}"
        )
    if done.problems:
        complain(f"{len(done.problems):,} packs are damaged; all else is restored. fsck --mark marks what is lost")
        raise typer.Exit(1)


class _Shown:
    """Shows the progress of a copy: a line on a terminal, and a line for each damaged pack anywhere."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._on_terminal = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._packs = self._all_packs = self._bytes = self._all_bytes = 0
        self._shown_at = float("-inf")

    def __enter__(self) -> "Progress":
        from ..upkeep.backup import Progress  # noqa: PLC0415 - as above

        return Progress(self._plan, self._read, self._copied)

    def __exit__(self, *_: object) -> None:
        self._clear()

    def _plan(self, packs: int, nbytes: int) -> None:
        self._all_packs, self._all_bytes = packs, nbytes

    def _read(self, nbytes: int) -> None:
        with self._lock:
            self._bytes += nbytes
            self._show()

    def _copied(self, copied: "Copied") -> None:
        with self._lock:
            self._packs += 1
            if copied.problem is not None:
                self._clear()
                complain(f"pack {copied.pack}: {copied.problem}")
            self._show()

    def _show(self) -> None:
        if not self._on_terminal or time.monotonic() - self._shown_at < SHOWN_EVERY:
            return
        from ..upkeep.report import size_as_text  # noqa: PLC0415 - as above

        self._shown_at = time.monotonic()
        self._clear()
        there = f"{self._packs:,} of {self._all_packs:,} packs"
        typer.echo(f"{there}, {size_as_text(self._bytes)} {self._verb}", err=True, nl=False)

    def _clear(self) -> None:
        if self._on_terminal:
            typer.echo("\r\x1b[K", err=True, nl=False)
