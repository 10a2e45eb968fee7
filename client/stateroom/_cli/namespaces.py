"""Commands for namespaces and their quotas."""

# No ``from __future__ import annotations``: typer reads annotations at run time, and Python 3.9 has no ``str | None``.
from typing import Annotated, Optional

import typer

from . import output as text
from .application import Json, Token, Url, cli, session
from .arguments import quotas_of


@cli.command()
def namespaces(context: typer.Context, url: Url = None, token: Token = None, json: Json = False) -> None:
    """List the namespaces: what each holds, and its quotas. Takes a token of scope admin."""
    with session(context, url, token, json=json) as at:
        found = list(at.client.namespaces())
        text.say_json(found) if at.json else text.namespaces_table(found)


@cli.command()
def namespace(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAMESPACE")],
    quota_bytes: Annotated[
        Optional[str], typer.Option(metavar="SIZE|none", help="most bytes to store: 500 GB, or a number")
    ] = None,
    quota_checkpoints: Annotated[Optional[str], typer.Option(metavar="N|none", help="most checkpoints to hold")] = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Show what a namespace holds, or set its quotas. Takes a token of scope admin."""
    quotas = quotas_of(quota_bytes, quota_checkpoints)
    with session(context, url, token, json=json) as at:
        found = at.client.set_quota(name, **quotas) if quotas else at.client.namespace(name)
        text.say_json(found) if at.json else text.namespaces_table([found])
