"""The commands. Each prints its result, as text or (``--json``) as one JSON document, or raises an error."""

# No ``from __future__ import annotations``: typer reads annotations at run time, and Python 3.9 has no ``str | None``.
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.filesize import decimal

from .._alias import Alias
from .._client import Client
from .._errors import StateroomError
from .._model import Model
from .._types import Format
from .._version import __version__
from . import output as text
from .arguments import (
    FAILED,
    WRONG_USAGE,
    alias_change,
    check_at_most_one,
    check_name,
    doomed_of,
    expected_of,
    model_of,
    numbers_of,
    pairs_of,
    quotas_of,
    renames_of,
    says_safetensors,
    target_of,
)
from .event_output import deliveries_table, event_text, events_table, webhooks_table

cli = typer.Typer(
    help="Upload PyTorch checkpoints to a Stateroom server, inspect and download them.",
    add_completion=False,
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

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="namespace/name")]
Target = Annotated[
    str, typer.Argument(metavar="MODEL[@REF]", help="namespace/name@REF: 12, best, epoch:3, ... (latest)")
]
Run = Annotated[
    Optional[str], typer.Option(metavar="NAME", help="only checkpoints of this training run (STATEROOM_RUN)")
]
Texts = Optional[list[str]]


class FileFormat(str, Enum):
    pt = "pt"
    safetensors = "safetensors"


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


@cli.command()
def push(
    context: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", exists=True, help="files written by torch.save or safetensors")
    ],
    model: ModelName,
    epoch: Annotated[Optional[int], typer.Option(help="(read from the file)")] = None,
    step: Annotated[Optional[int], typer.Option(help="(read from the file)")] = None,
    loss: Annotated[Optional[float], typer.Option(help="(read from the file)")] = None,
    run: Annotated[Optional[str], typer.Option(metavar="NAME", help="training run (STATEROOM_RUN)")] = None,
    metric: Annotated[Texts, typer.Option(metavar="NAME=VALUE", help="may be repeated")] = None,
    tag: Annotated[Texts, typer.Option(metavar="NAME=VALUE", help="may be repeated")] = None,
    parent: Annotated[
        Optional[str], typer.Option(metavar="[MODEL@]VERSION", help="the checkpoint that training went on from")
    ] = None,
    warm_started_from: Annotated[
        Optional[str], typer.Option(metavar="[MODEL@]VERSION", help="the checkpoint whose tensors training began with")
    ] = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Upload files as new checkpoints of a model, in the given order. Stops at the first file that is refused."""
    metrics, tags = numbers_of(metric, "--metric"), pairs_of(tag, "--tag")
    name, stored = model_of(model), []
    with session(context, url, token, json=json) as at:
        into = at.client.model(name, run)
        try:
            for file in files:
                checkpoint = into.upload(
                    file,
                    epoch=epoch,
                    step=step,
                    loss=loss,
                    metrics=metrics,
                    tags=tags,
                    parent=parent,
                    warm_started_from=warm_started_from,
                )
                stored.append(checkpoint)
                if not at.json:
                    text.say(f"{checkpoint}  {file}, {text.stored_text(checkpoint)}")
        finally:
            if at.json:
                text.say_json(stored)


@cli.command()
def pull(
    context: typer.Context,
    target: Target,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="file or folder to write to (.)")
    ] = Path(),
    device: Annotated[Optional[str], typer.Option(help="device that torch.load loads to (as saved)")] = None,
    run: Run = None,
    state_dict: Annotated[bool, typer.Option("--state-dict", help="only one component of the checkpoint")] = False,
    component: Annotated[Optional[str], typer.Option(help="its name (the model's); implies --state-dict")] = None,
    include: Annotated[Texts, typer.Option(metavar="GLOB", help="keys to keep; may be repeated")] = None,
    exclude: Annotated[Texts, typer.Option(metavar="GLOB", help="keys to leave out; may be repeated")] = None,
    strip_prefix: Annotated[
        Texts, typer.Option(metavar="PREFIX", help="prefix to strip from the keys, before all else; may be repeated")
    ] = None,
    rename: Annotated[Texts, typer.Option(metavar="OLD=>NEW", help="prefix to rename; may be repeated")] = None,
    add_prefix: Annotated[Optional[str], typer.Option(help="prefix to add to every key, after all else")] = None,
    dtype: Annotated[Optional[str], typer.Option(help="dtype to cast floats to: float32, float16 or bfloat16")] = None,
    dtype_exclude: Annotated[
        Texts, typer.Option(metavar="GLOB", help="new keys that are not cast; may be repeated")
    ] = None,
    format: Annotated[Optional[FileFormat], typer.Option(help="(by PATH, else pt); implies --state-dict")] = None,  # noqa: A002  its name on the command line
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Download a checkpoint as it was uploaded, or for another device; or one of its state_dicts, whole or in part, in
    any dtype or format.
    """
    wanted, renames = target_of(target), renames_of(rename)
    keys = (component, include or None, exclude or None, strip_prefix or None, rename or None, add_prefix)
    selects = (*keys, dtype, dtype_exclude or None, format)
    if not output.parent.is_dir():
        raise typer.BadParameter(f"the folder {output.parent} does not exist", param_hint="--output")
    with session(context, url, token, json=json) as at:
        model = at.client.model(wanted.model, run)
        checkpoint = model.checkpoint(wanted.ref)
        if state_dict or any(option is not None for option in selects):
            named: Format = "safetensors" if says_safetensors(output) else "pt"
            kind: Format = named if format is None else format.value
            check_name(output, kind)
            path = model.download_state_dict(
                checkpoint,
                output,
                component=component,
                map_location=device,
                include=include or (),
                exclude=exclude or (),
                strip_prefix=strip_prefix or None,
                rename=renames,
                add_prefix=add_prefix,
                dtype=dtype,
                dtype_exclude=dtype_exclude or (),
                format=kind,
            )
        else:
            check_name(output, checkpoint.format if device is None else "pt")
            path = model.download(checkpoint, output, device)
        size = path.stat().st_size
        if at.json:
            text.say_json({"model": checkpoint.model, "version": checkpoint.version, "path": str(path), "bytes": size})
        else:
            text.say(f"{checkpoint}  {path}, {decimal(size)}")


@cli.command()
def ls(
    context: typer.Context,
    model: Annotated[Optional[str], typer.Argument(metavar="[MODEL]", help="(list the models)")] = None,
    order: Annotated[
        Optional[str], typer.Option(metavar="FIELD", help="field to sort by: loss, -epoch, metric.acc, ... (-version)")
    ] = None,
    where: Annotated[
        Texts, typer.Option(metavar="FIELD[.OP]=VALUE", help="epoch.ge=3, tag.by=me; may be repeated")
    ] = None,
    limit: Annotated[Optional[int], typer.Option(min=1, help="most entries to list (all)")] = None,
    run: Run = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """List the checkpoints of a model, newest first; without a model, list the models."""
    conditions = pairs_of(where, "--where")
    if model is None and (order or conditions or run):
        raise typer.BadParameter("--order, --where and --run need a model", param_hint="MODEL")
    with session(context, url, token, json=json) as at:
        if model is None:
            models = list(islice(at.client.models(), limit))
            text.say_json(models) if at.json else text.models_table(models)
        else:
            line = at.client.model(model_of(model), run)
            found = list(line.checkpoints(order=order, where=conditions, limit=limit))
            text.say_json(found) if at.json else text.checkpoints_table(found)


@cli.command()
def show(
    context: typer.Context,
    target: Target,
    tensors: Annotated[bool, typer.Option("--tensors", help="also list all keys and param_groups")] = False,
    run: Run = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Show a checkpoint with its metrics, tags and components."""
    wanted = target_of(target)
    with session(context, url, token, json=json) as at:
        model = at.client.model(wanted.model, run)
        checkpoint = model.checkpoint(wanted.ref)
        inside = list(model.tensors(checkpoint)) if tensors else []
        optimizers = [each.name for each in checkpoint.components if each.kind == "optimizer"] if tensors else []
        groups = {name: model.param_groups(checkpoint, name) for name in optimizers}
        if at.json:
            more = {"tensors": inside, "param_groups": groups} if tensors else {}
            text.say_json({**asdict(checkpoint), **more})
        else:
            text.checkpoint_table(checkpoint)
            text.tensors_tables(inside, groups)


@cli.command()
def lineage(
    context: typer.Context,
    target: Target,
    ref: Annotated[Optional[str], typer.Argument(metavar="[REF]", help="instead of @REF")] = None,
    run: Run = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """List the checkpoints that a checkpoint was trained from, and those trained from it, whether deleted or not."""
    wanted = target_of(target if ref is None else f"{model_of(target)}@{ref}")
    with session(context, url, token, json=json) as at:
        found = at.client.model(wanted.model, run).checkpoint(wanted.ref).lineage()
        text.say_json(found) if at.json else text.lineage_tables(found)


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


@cli.command()
def best(
    context: typer.Context,
    model: ModelName,
    by: Annotated[str, typer.Argument(metavar="min:NAME|max:NAME", help="loss, or a metric")],
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Set the metric by which the ref best picks a checkpoint."""
    with session(context, url, token, json=json) as at:
        changed = at.client.model(model_of(model)).set_best(by)
        text.say_json(asdict(changed)) if at.json else text.say(f"{changed.name}: best is {changed.best}")


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


@cli.command()
def rm(
    context: typer.Context,
    targets: Annotated[
        list[str], typer.Argument(metavar="MODEL[@VERSION]...", help="namespace/name@12, or an empty model")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask for confirmation")] = False,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Delete checkpoints by version number, and empty models, in the given order. Stops at the first that cannot be
    deleted.
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
                if isinstance(target, str):
                    at.client.delete_model(target)
                    deleted.append({"model": target})
                else:
                    at.client.model(target.model).delete(target.ref)
                    deleted.append({"model": target.model, "version": int(target.ref.lstrip("v"))})
                if not at.json:
                    text.say(f"deleted {target}")
        finally:
            if at.json:
                text.say_json(deleted)


@cli.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    options_metavar="[OPTIONS OF stateroom-server serve]",
)
def serve(context: typer.Context) -> None:
    """Run a server: stateroom-server serve, with the same options."""
    beside = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])  # noqa: PTH120
    server = shutil.which("stateroom-server", path=beside)
    if server is None:
        raise StateroomError("the server is not installed here: pip install 'stateroom[server]'")
    os.execv(server, [server, "serve", *context.args])  # noqa: S606  no shell is wanted
