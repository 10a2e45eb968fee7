"""Commands that delete checkpoints, bring them back, and keep them."""

# No ``from __future__ import annotations``: typer reads annotations at run time, and Python 3.9 has no ``str | None``.
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Optional, Union

import typer

from .._client import Client
from . import output as text
from . import rules as rules_output
from .application import Json, ModelName, Run, Target, Texts, Token, Url, cli, session
from .arguments import FAILED, bests_of, doomed_of, model_of, target_of
from .arguments import Target as Checkpoint


@cli.command()
def rm(
    context: typer.Context,
    targets: Annotated[
        list[str], typer.Argument(metavar="MODEL[@VERSION]...", help="namespace/name@12, or an empty model")
    ],
    purge: Annotated[bool, typer.Option("--purge", help="delete for good, also from the trash")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask for confirmation")] = False,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Delete checkpoints by version number, and empty models, in the given order. Stops at the first that cannot be
    deleted. A checkpoint goes to the trash, from where restore brings it back.
    """
    doomed = list(map(doomed_of, targets))
    deleted: list[dict[str, object]] = []
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("cannot ask for confirmation without a terminal: pass --yes", param_hint="--yes")
        if not typer.confirm(f"Delete {', '.join(map(str, doomed))}?", err=True):
            raise typer.Exit(FAILED)
    with session(context, url, token, json=json) as at:
        try:
            for target in doomed:
                until = None
                if isinstance(target, str):
                    at.client.delete_model(target)
                    deleted.append({"model": target})
                else:
                    until = at.client.model(target.model).delete(target.ref, purge=purge)
                    version = int(target.ref.lstrip("v"))
                    deleted.append({"model": target.model, "version": version, "purged_at": until})
                if not at.json:
                    text.say(f"deleted {target}{_how_to_undo(target, until)}")
        finally:
            if at.json:
                text.say_json(deleted)


def _how_to_undo(target: Union[Checkpoint, str], until: Optional[datetime]) -> str:
    return "" if until is None else f"; until {text.time_text(until)}: stateroom restore {target}"


@cli.command()
def restore(
    context: typer.Context,
    targets: Annotated[list[str], typer.Argument(metavar="MODEL@VERSION...", help="namespace/name@12")],
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Bring checkpoints back from the trash, in the given order: stateroom ls MODEL --trash lists it."""
    wanted = [_checkpoint_of(target) for target in targets]
    restored = []
    with session(context, url, token, json=json) as at:
        try:
            for target in wanted:
                checkpoint = at.client.model(target.model).restore(target.ref)
                restored.append(checkpoint)
                if not at.json:
                    text.say(f"restored {checkpoint}{', pinned' if checkpoint.pin else ''}")
        finally:
            if at.json:
                text.say_json(restored)


def _checkpoint_of(target: str) -> Checkpoint:
    wanted = doomed_of(target)
    if isinstance(wanted, str):
        raise typer.BadParameter(f"{target!r} has no version: write namespace/name@12", param_hint="MODEL@VERSION")
    return wanted


@cli.command()
def pin(
    context: typer.Context,
    target: Target,
    reason: Annotated[Optional[str], typer.Option(help="why it has to stay")] = None,
    run: Run = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Keep a checkpoint: nobody and no rule deletes it until its pin is removed."""
    wanted = target_of(target)
    with session(context, url, token, json=json) as at:
        checkpoint = at.client.model(wanted.model, run).pin(wanted.ref, reason=reason)
        text.say_json(checkpoint) if at.json else text.say(f"pinned {checkpoint}")


@cli.command()
def unpin(
    context: typer.Context,
    target: Target,
    run: Run = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Remove a checkpoint's pin."""
    wanted = target_of(target)
    with session(context, url, token, json=json) as at:
        model = at.client.model(wanted.model, run)
        checkpoint = model.checkpoint(wanted.ref)
        model.unpin(checkpoint)
        unpinned = model.checkpoint(checkpoint)
        text.say_json(unpinned) if at.json else text.say(f"unpinned {checkpoint}")


@cli.command()
def history(
    context: typer.Context,
    model: ModelName,
    run: Run = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """List the numbers of every checkpoint there ever was, deleted ones too, oldest first."""
    with session(context, url, token, json=json) as at:
        entries = list(at.client.model(model_of(model), run).history())
        text.say_json(entries) if at.json else text.history_table(entries)


@cli.command()
def retention(
    context: typer.Context,
    model: ModelName,
    keep_last: Annotated[Optional[int], typer.Option(min=1, metavar="N", help="the newest of each run")] = None,
    keep_best: Annotated[
        Texts, typer.Option(metavar="min:NAME|max:NAME[=N]", help="the best of each run; may be repeated")
    ] = None,
    keep_every: Annotated[Optional[int], typer.Option(min=1, metavar="EPOCHS", help="each N-th epoch")] = None,
    keep_every_steps: Annotated[Optional[int], typer.Option(min=1, metavar="STEPS", help="each N-th step")] = None,
    keep_for: Annotated[Optional[str], typer.Option(metavar="TIME", help="the younger: 12h, 30d")] = None,
    thin_after: Annotated[
        Optional[int], typer.Option(min=1, metavar="N", help="older ones lose their optimizers' bytes")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="remove all rules")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what the rules would do, and change nothing")] = False,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Show or set the rules by which the server keeps checkpoints, of a model or, without a slash, of all models of a
    namespace that have none of their own. What no rule keeps goes to the trash, after the next commit or at the next
    sweep; never the newest of a run, nor one with an alias or a pin.
    """
    rules: dict[str, Any] = {
        "keep_last": keep_last,
        "keep_best": bests_of(keep_best),
        "keep_every": _every(keep_every, keep_every_steps),
        "keep_for": keep_for,
        "thin_after": thin_after,
    }
    given = {name: rule for name, rule in rules.items() if rule is not None}
    if off and given:
        raise typer.BadParameter("it removes all rules: give no others", param_hint="--off")
    with session(context, url, token, json=json) as at:
        if "/" not in model:
            now = _of_namespace(at.client, model, given, off=off, dry_run=dry_run)
            text.say_json(now) if at.json else text.say(rules_output.rules_text(now, rules_output.NONE))
            return
        line = at.client.model(model_of(model))
        if dry_run:
            preview = line.preview_retention(None) if off else line.preview_retention(**given)
            text.say_json(preview) if at.json else rules_output.say_preview(preview)
        else:
            now = line.retention(None) if off else line.retention(**given)
            text.say_json(now) if at.json else text.say(rules_output.rules_text(now, rules_output.NO_OWN))


def _of_namespace(
    client: Client, name: str, given: dict[str, Any], *, off: bool, dry_run: bool
) -> Optional[Mapping[str, Any]]:
    """Show, set or remove the rules of a namespace's models that have none of their own."""
    if dry_run:
        raise typer.BadParameter("a preview is of one model: give namespace/name", param_hint="--dry-run")
    if off:
        return client.set_namespace_retention(name, None).retention
    found = client.set_namespace_retention(name, **given) if given else client.namespace(name)
    return found.retention


def _every(epochs: Optional[int], steps: Optional[int]) -> Optional[dict[str, int]]:
    every = {"epochs": epochs, "steps": steps}
    return {unit: count for unit, count in every.items() if count is not None} or None
