"""Commands for events, and for webhooks that tell of them."""

# No ``from __future__ import annotations``: typer reads annotations at run time, and Python 3.9 has no ``str | None``.
from typing import Annotated, Optional

import typer

from . import completion
from . import output as text
from .application import Json, ModelName, Texts, Token, Url, cli, session
from .arguments import check_at_most_one, model_of
from .event_output import change_text, deliveries_table, event_text, events_table, webhooks_table


@cli.command()
def events(
    context: typer.Context,
    model: ModelName,
    after: Annotated[
        Optional[str], typer.Option(metavar="ID|newest", help="only events after this one (all that are kept)")
    ] = None,
    kind: Annotated[Texts, typer.Option(metavar="KIND", help="only this kind, such as alias-moved; repeatable")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="go on with each change as it happens")] = False,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """List what happened to a model, oldest first. With --follow and --json, each line is one JSON document."""
    with session(context, url, token, json=json) as at:
        found = at.client.model(model_of(model)).events(after, follow=follow, kinds=kind or ())
        if follow:
            for event in found:
                text.say_json_line(event) if at.json else text.say(event_text(event))
        else:
            text.say_json(list(found)) if at.json else events_table(found)


@cli.command()
def watch(
    context: typer.Context,
    target: Annotated[
        Optional[str],
        typer.Argument(
            metavar="[MODEL|NAMESPACE]", help="(the whole server, for its admins)", autocompletion=completion.models
        ),
    ] = None,
    kind: Annotated[Texts, typer.Option(metavar="KIND", help="only this kind, such as alias-moved; repeatable")] = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Print changes as they happen, until Ctrl+C. With --json, each line is one JSON document."""
    with session(context, url, token, json=json) as at:
        if target is not None and "/" in target:
            found = at.client.model(model_of(target)).events("newest", follow=True, kinds=kind or ())
        else:
            found = at.client.events(target, after="newest", follow=True, kinds=kind or ())
        for event in found:
            text.say_json_line(event) if at.json else text.say(change_text(event))


@cli.command()
def webhooks(
    context: typer.Context,
    model: ModelName,
    add: Annotated[Optional[str], typer.Option(metavar="URL", help="tell this URL of the model's events")] = None,
    kind: Annotated[Texts, typer.Option(metavar="KIND", help="with --add: only this kind; repeatable")] = None,
    deliveries: Annotated[
        Optional[str], typer.Option(metavar="ID", help="list the deliveries to a webhook, newest first")
    ] = None,
    remove: Annotated[Optional[str], typer.Option("--rm", metavar="ID", help="remove a webhook")] = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """List a model's webhooks, add or remove one, or list the deliveries to one. --add prints its secret, only then."""
    check_at_most_one(add=add, deliveries=deliveries, rm=remove)
    with session(context, url, token, json=json) as at:
        line = at.client.model(model_of(model))
        if add is not None:
            made = line.add_webhook(add, kinds=kind or ())
            text.say_json(made) if at.json else text.say(f"{made.id}  {made.secret}")
        elif deliveries is not None:
            found = list(line.webhook_deliveries(deliveries))
            text.say_json(found) if at.json else deliveries_table(found)
        elif remove is not None:
            line.remove_webhook(remove)
            text.say_json({"model": line.name, "removed": remove}) if at.json else text.say(f"removed {remove}")
        else:
            text.say_json(line.webhooks()) if at.json else webhooks_table(line.webhooks())
