"""The command that merges checkpoints."""

# No ``from __future__ import annotations``: typer reads annotations at run time, and Python 3.9 has no ``str | None``.
from typing import Annotated, Optional, Union

import typer

from . import output as text
from .application import Json, ModelName, Run, Texts, Token, Url, cli, session
from .arguments import model_of, numbers_of, pairs_of


@cli.command()
def merge(
    context: typer.Context,
    model: ModelName,
    refs: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="REF[=WEIGHT]...", help="the checkpoints, oldest first; or namespace/name@REF"),
    ] = None,
    last: Annotated[Optional[int], typer.Option(metavar="N", help="merge the last N that are no merges")] = None,
    method: Annotated[
        str, typer.Option(metavar="METHOD", help="average, linear, ema or slerp (average)", show_default=False)
    ] = "average",
    decay: Annotated[Optional[float], typer.Option(help="of ema: between 0 and 1")] = None,
    t: Annotated[Optional[float], typer.Option(help="of slerp: from 0, the first, to 1, the second (0.5)")] = None,
    normalize: Annotated[
        Optional[bool],
        typer.Option("--normalize/--as-they-are", help="of linear: divide weights by their sum, or do not"),
    ] = None,
    component: Annotated[Optional[str], typer.Option(metavar="NAME", help="the state_dict (the model's)")] = None,
    epoch: Annotated[Optional[int], typer.Option(help="of the new checkpoint")] = None,
    step: Annotated[Optional[int], typer.Option(help="of the new checkpoint")] = None,
    loss: Annotated[Optional[float], typer.Option(help="of the new checkpoint")] = None,
    metric: Annotated[Texts, typer.Option(metavar="NAME=VALUE", help="may be repeated")] = None,
    tag: Annotated[Texts, typer.Option(metavar="NAME=VALUE", help="may be repeated")] = None,
    ttl: Annotated[Optional[str], typer.Option(metavar="TIME", help="then it goes to the trash: 12h, 30d")] = None,
    slot: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="replace the one that the run has under this name")
    ] = None,
    run: Run = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Make a checkpoint on the server: the average, or another combination, of the state_dicts of others."""
    metrics, tags = numbers_of(metric, "--metric"), pairs_of(tag, "--tag")
    name, of = model_of(model), [_source_of(each) for each in refs or ()]
    with session(context, url, token, json=json) as at:
        made = at.client.model(name, run).merge(
            of,
            last=last,
            method=method,  # type: ignore[arg-type]  # the server knows the methods
            decay=decay,
            t=t,
            normalize=normalize,
            component=component,
            epoch=epoch,
            step=step,
            loss=loss,
            metrics=metrics,
            tags=tags,
            ttl=ttl,
            slot=slot,
        )
        if at.json:
            text.say_json(made)
        else:
            text.say(f"{made}  {made.merge}, {text.stored_text(made)}")


def _source_of(argument: str) -> Union[str, tuple[str, float]]:
    """Parse ``REF`` or ``REF=WEIGHT``. Raises BadParameter."""
    ref, equals, weight = argument.rpartition("=")
    if not equals:
        return argument
    try:
        return ref, float(weight)
    except ValueError:
        raise typer.BadParameter(f"{argument!r}: {weight!r} is not a number", param_hint="REF[=WEIGHT]") from None
