"""The command for aliases."""

# No ``from __future__ import annotations``: typer reads annotations at run time, and Python 3.9 has no ``str | None``.
from typing import Annotated, Optional

import typer

from .._alias import Alias
from .._model import Model
from . import output as text
from .application import Json, ModelName, Token, Url, cli, session
from .arguments import alias_change, expected_of, model_of


@cli.command()
def alias(
    context: typer.Context,
    model: ModelName,
    name: Annotated[Optional[str], typer.Argument(metavar="NAME", help="an alias; without, all are listed")] = None,
    ref: Annotated[Optional[str], typer.Argument(metavar="REF", help="what it is to mean: 12, best, ...")] = None,
    expect: Annotated[
        Optional[str], typer.Option(metavar="N|none", help="only if it means this version now; none: only if it is new")
    ] = None,
    note: Annotated[Optional[str], typer.Option(help="why; kept with the change")] = None,
    history: Annotated[bool, typer.Option("--history", help="list all changes, newest first")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="move it back to its previous version")] = False,
    remove: Annotated[bool, typer.Option("--rm", help="remove it; the checkpoint stays")] = False,
    protect: Annotated[
        Optional[bool], typer.Option("--protect/--unprotect", help="let only admins move and remove it")
    ] = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """List, move, roll back or remove aliases: names such as prod that mean one checkpoint until they are moved."""
    change = alias_change(name, ref, history=history, rollback=rollback, remove=remove, protect=protect)
    expected = expected_of(expect, note, change)
    with session(context, url, token, json=json) as at:
        line = at.client.model(model_of(model))
        if name is None:
            found = line.aliases()
            text.say_json(found) if at.json else text.aliases_table(found)
        elif change == "history":
            changes = list(line.alias_history(name))
            text.say_json(changes) if at.json else text.alias_changes_table(changes)
        elif change == "rm":
            line.unalias(name, **expected)
            text.say_json({"model": line.name, "removed": name}) if at.json else text.say(f"removed {name}")
        else:
            moved = _moved(line, name, ref, note, protect, expected) if change else line.alias_at(name)
            text.say_json(moved) if at.json else text.say(text.alias_text(moved))


def _moved(
    line: Model,
    name: str,
    ref: Optional[str],
    note: Optional[str],
    protect: Optional[bool],
    expected: dict[str, Optional[str]],
) -> Alias:
    """Move, protect or roll back an alias."""
    if ref is not None:
        return line.alias(name, ref, note=note, **expected)
    if protect is not None:
        return line.protect_alias(name, protected=protect)
    return line.rollback(name, **expected)
