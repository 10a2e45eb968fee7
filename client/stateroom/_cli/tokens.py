"""The command for the server's tokens."""

# No ``from __future__ import annotations``: typer reads annotations at run time, and Python 3.9 has no ``str | None``.
from typing import Annotated, Optional

import typer

from . import output as text
from .application import Json, Texts, Token, Url, cli, session
from .arguments import check_at_most_one


@cli.command()
def tokens(
    context: typer.Context,
    add: Annotated[Optional[str], typer.Option(metavar="NAME", help="make a token of this name")] = None,
    scope: Annotated[Optional[str], typer.Option(metavar="SCOPE", help="with --add: read, write or admin")] = None,
    namespace: Annotated[
        Texts, typer.Option(metavar="NS", help="with --add: limit it to this namespace; repeatable")
    ] = None,
    expires: Annotated[
        Optional[str], typer.Option(metavar="WHEN", help="with --add: 90d, 12h, 2027-01-31 (never)")
    ] = None,
    revoke: Annotated[Optional[str], typer.Option(metavar="NAME", help="revoke a token, by its name or id")] = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """List the server's tokens, make or revoke one. --add prints the token, only then. Takes a token of scope admin."""
    check_at_most_one(add=add, revoke=revoke)
    if (add is None) != (scope is None) or (add is None and (namespace or expires)):
        raise typer.BadParameter("--add NAME needs --scope; --scope, --namespace and --expires need --add")
    with session(context, url, token, json=json) as at:
        if add is not None and scope is not None:
            made = at.client.add_token(add, scope, namespaces=namespace or None, expires=expires)
            text.say_json(made) if at.json else text.say(str(made.token))
        elif revoke is not None:
            at.client.revoke_token(revoke)
            text.say_json({"revoked": revoke}) if at.json else text.say(f"revoked {revoke}")
        else:
            found = list(at.client.tokens())
            text.say_json(found) if at.json else text.tokens_table(found)
