"""The command that opens a model's page in a browser."""

# No ``from __future__ import annotations``: typer reads annotations at run time, and Python 3.9 has no ``str | None``.
import os
import sys
import webbrowser
from typing import Annotated, Optional
from urllib.parse import quote

import typer

from .._client import Client
from . import completion
from . import output as text
from .application import Json, Token, Url, cli, session
from .arguments import target_of


@cli.command(name="open")
def open_page(
    context: typer.Context,
    target: Annotated[
        Optional[str],
        typer.Argument(metavar="[MODEL[@REF]]", help="(the list of models)", autocompletion=completion.models),
    ] = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Print the address of a model's page, or of a checkpoint's, and open it on a desktop."""
    with session(context, url, token, json=json) as at:
        address = at.client.url.rstrip("/") + _path(at.client, target)
        text.say_json({"url": address}) if at.json else text.say(address)
    if not json and sys.stdout.isatty() and _has_desktop():
        webbrowser.open(address)


def _path(client: Client, target: Optional[str]) -> str:
    if target is None:
        return "/"
    wanted = target_of(target)
    path = f"/models/{client.model(wanted.model).name}"
    return f"{path}/checkpoints/{quote(wanted.ref, safe='')}" if "@" in target else path


def _has_desktop() -> bool:
    """Tell whether a browser would open a window: elsewhere ``webbrowser`` would start one in this terminal."""
    return sys.platform in {"darwin", "win32"} or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
