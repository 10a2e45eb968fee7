"""The commands that write checkpoints as plain files, and read them again."""

# No ``from __future__ import annotations``: typer reads annotations at run time, and Python 3.9 has no ``str | None``.
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.filesize import decimal

from .._errors import RefusedCheckpoint
from .._printable import printable
from ..archive import Exported, Imported, export_models, import_folder
from . import completion
from . import output as text
from .application import Json, Token, Url, cli, session
from .arguments import model_of


@cli.command(name="export")
def export_(
    context: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL]... FOLDER",
            help="models (all), and a new folder or an earlier export",
            autocompletion=completion.models,
        ),
    ],
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Write checkpoints as plain files with their metadata as JSON, which read without Stateroom. Goes on where an
    earlier export ended.
    """
    *models, folder = targets
    names = [model_of(each) for each in models]
    with session(context, url, token, json=json) as at:

        def say(exported: Exported) -> None:
            what = "was there" if exported.was_there else decimal(exported.bytes)
            text.say(f"{printable(exported.checkpoint)}  {exported.path}, {what}")

        done = export_models(at.client, folder, names, report=None if at.json else say)
        if at.json:
            text.say_json([{**asdict(each), "path": str(each.path)} for each in done])


@cli.command(name="import")
def import_(
    context: typer.Context,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", exists=True, file_okay=False, help="an export, or a folder that other tools have written"
        ),
    ],
    model: Annotated[
        Optional[str],
        typer.Argument(metavar="[MODEL]", help="(an export's own models)", autocompletion=completion.models),
    ] = None,
    run: Annotated[Optional[str], typer.Option(metavar="NAME", help="training run (STATEROOM_RUN)")] = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Store what a folder holds: an export, checkpoint files, a folder of the Hugging Face Hub or its Trainer, one of
    torch.distributed.checkpoint, or an MLflow artifact root. Stores nothing twice. If files are refused, all others are
    stored, and the exit code says so.
    """
    name = None if model is None else model_of(model)
    with session(context, url, token, json=json) as at:

        def say(imported: Imported) -> None:
            what = f"refused: {imported.why}" if imported.checkpoint is None else printable(imported.checkpoint)
            text.say(f"{printable(imported.source)}  {what}{' (was there)' if imported.was_there else ''}")

        done = import_folder(at.client, folder, name, run=run, report=None if at.json else say)
        if at.json:
            text.say_json([asdict(each) for each in done])
        refused = [each for each in done if each.why is not None]
        if refused:
            raise RefusedCheckpoint(
                f"{len(refused)} of {len(done)} were refused: {refused[0].source}: {refused[0].why}"
            )
