"""Commands that store, find and fetch checkpoints, and that run a server.

Each prints its result, as text or (``--json``) as one JSON document, or raises an error.
"""

# No ``from __future__ import annotations``: typer reads annotations at run time, and Python 3.9 has no ``str | None``.
import os
import shutil
import sys
from dataclasses import asdict, replace
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.filesize import decimal

from .._errors import StateroomError
from .._types import Format
from . import completion
from . import output as text
from .application import Json, ModelName, Run, Target, Texts, Token, Url, cli, session
from .arguments import (
    check_name,
    model_of,
    numbers_of,
    pairs_of,
    renames_of,
    says_safetensors,
    size_of,
    target_of,
)
from .lineage_output import lineage_tables
from .tensor_output import tensors_tables


class FileFormat(str, Enum):
    pt = "pt"
    safetensors = "safetensors"


@cli.command()
def push(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", exists=True, help="files written by torch.save or safetensors, or folders"),
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
    ttl: Annotated[Optional[str], typer.Option(metavar="TIME", help="then it goes to the trash: 12h, 30d")] = None,
    slot: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="replace the one that the run has under this name")
    ] = None,
    scan: Annotated[
        bool, typer.Option("--scan", help="let the server look for NaN and infinities, afterwards")
    ] = False,
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
                    ttl=ttl,
                    slot=slot,
                    scan=scan,
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
    any dtype or format. A folder is written to a new folder.
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
            is_folder = checkpoint.format == "folder" and device is None
            if not is_folder:
                check_name(output, checkpoint.format if device is None else "pt")
            elif output == Path():
                output = Path(f"{wanted.model.rpartition('/')[2]}-v{checkpoint.version}")
            path = model.download(checkpoint, output, device)
        size = size_of(path)
        if at.json:
            text.say_json({"model": checkpoint.model, "version": checkpoint.version, "path": str(path), "bytes": size})
        else:
            text.say(f"{checkpoint}  {path}, {decimal(size)}")


@cli.command()
def ls(
    context: typer.Context,
    model: Annotated[
        Optional[str], typer.Argument(metavar="[MODEL]", help="(list the models)", autocompletion=completion.models)
    ] = None,
    order: Annotated[
        Optional[str], typer.Option(metavar="FIELD", help="field to sort by: loss, -epoch, metric.acc, ... (-version)")
    ] = None,
    where: Annotated[
        Texts, typer.Option(metavar="FIELD[.OP]=VALUE", help="epoch.ge=3, tag.by=me; may be repeated")
    ] = None,
    limit: Annotated[Optional[int], typer.Option(min=1, help="most entries to list (all)")] = None,
    trash: Annotated[bool, typer.Option("--trash", help="list the model's trash instead")] = False,
    run: Run = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """List the checkpoints of a model, newest first; without a model, list the models."""
    conditions = pairs_of(where, "--where")
    if model is None and (order or conditions or run or trash):
        raise typer.BadParameter("--order, --where, --trash and --run need a model", param_hint="MODEL")
    with session(context, url, token, json=json) as at:
        if model is None:
            models = list(islice(at.client.models(), limit))
            text.say_json(models) if at.json else text.models_table(models)
        else:
            line = at.client.model(model_of(model), run)
            found = list(line.checkpoints(order=order, where=conditions, limit=limit, trash=trash))
            text.say_json(found) if at.json else text.checkpoints_table(found, trash=trash)
            if not at.json and sys.stdout.isatty() and not trash:
                text.loss_curves(found)


@cli.command()
def show(
    context: typer.Context,
    target: Target,
    tensors: Annotated[bool, typer.Option("--tensors", help="also list all keys and param_groups")] = False,
    tree: Annotated[
        Optional[bool], typer.Option("--tree/--no-tree", help="list the keys as a tree (on a terminal)")
    ] = None,
    sha256: Annotated[bool, typer.Option("--sha256", help="compute the uploaded file's SHA-256, if need be")] = False,
    run: Run = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Show a checkpoint with its metrics, tags and components."""
    tensors = tensors or tree is True
    wanted = target_of(target)
    with session(context, url, token, json=json) as at:
        model = at.client.model(wanted.model, run)
        checkpoint = model.checkpoint(wanted.ref)
        if sha256:
            checkpoint = replace(checkpoint, sha256=checkpoint.compute_sha256())
        inside = list(model.tensors(checkpoint)) if tensors else []
        optimizers = [each.name for each in checkpoint.components if each.kind == "optimizer"] if tensors else []
        groups = {name: model.param_groups(checkpoint, name) for name in optimizers}
        if at.json:
            more = {"tensors": inside, "param_groups": groups} if tensors else {}
            text.say_json({**asdict(checkpoint), **more})
        else:
            text.checkpoint_table(checkpoint)
            tensors_tables(inside, groups, tree=sys.stdout.isatty() if tree is None else tree)


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
        text.say_json(found) if at.json else lineage_tables(found)


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
