"""The command that lists a checkpoint's files."""

# No ``from __future__ import annotations``: typer reads annotations at run time, and Python 3.9 has no ``str | None``.
import typer
from rich.filesize import decimal

from .._printable import printable
from . import output as text
from .application import Json, Run, Target, Token, Url, cli, session
from .arguments import target_of


@cli.command()
def files(
    context: typer.Context,
    target: Target,
    run: Run = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """List the files of a folder; of another checkpoint, the one file that it is downloaded as."""
    wanted = target_of(target)
    with session(context, url, token, json=json) as at:
        found = at.client.model(wanted.model, run).checkpoint(wanted.ref).files()
        if at.json:
            text.say_json(found)
            return
        rows = [
            [
                printable(file.path),
                decimal(file.bytes),
                file.format or text.ABSENT,
                ", ".join(printable(name) or "''" for name in file.components) or text.ABSENT,
            ]
            for file in found
        ]
        text.table(["PATH", "SIZE", "FORMAT", "COMPONENTS"], rows)
