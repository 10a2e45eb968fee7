"""The application of the command line: the options that commands share, and what happens before each of them."""

# No ``from __future__ import annotations``: typer reads annotations at run time, and Python 3.9 has no ``str | None``.
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Optional

import typer

from .._client import Client
from .._version import __version__
from . import completion
from . import output as text
from .arguments import WRONG_USAGE

cli = typer.Typer(
    help="Upload PyTorch checkpoints to a Stateroom server, inspect and download them.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# These three options may stand before or after the command.
Url = Annotated[
    Optional[str], typer.Option(metavar="URL", help="the server (STATEROOM_URL, else http://127.0.0.1:8765)")
]
Token = Annotated[
    Optional[str], typer.Option(metavar="TOKEN", help="prefer STATEROOM_TOKEN: a process list shows options")
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document")]

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="namespace/name", autocompletion=completion.models)]
Target = Annotated[
    str,
    typer.Argument(
        metavar="MODEL[@REF]",
        help="namespace/name@REF: 12, best, epoch:3, ... (latest)",
        autocompletion=completion.models,
    ),
]
Run = Annotated[
    Optional[str], typer.Option(metavar="NAME", help="only checkpoints of this training run (STATEROOM_RUN)")
]
Texts = Optional[list[str]]


@dataclass(frozen=True)
class Session:
    client: Client
    json: bool


@contextmanager
def session(context: typer.Context, url: Optional[str], token: Optional[str], *, json: bool) -> Iterator[Session]:
    """``context.obj`` holds the options that stood before the command; those after it win."""
    url_before, token_before, json_before = context.obj
    with Client(url or url_before, token or token_before) as client:
        yield Session(client, json or json_before)


@cli.callback(invoke_without_command=True)
def stateroom(
    context: typer.Context,
    url: Url = None,
    token: Token = None,
    json: Json = False,
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    context.obj = (url, token, json)
    if version:
        text.say(f"stateroom {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(WRONG_USAGE)
