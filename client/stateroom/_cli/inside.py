"""The commands that look inside checkpoints: diff, stats and tensor."""

# No ``from __future__ import annotations``: typer reads annotations at run time, and Python 3.9 has no ``str | None``.
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.filesize import decimal

from .._inside import Diff, Stats, number_text, shape_text
from . import output as text
from .application import Json, ModelName, Run, Target, Texts, Token, Url, cli, session
from .arguments import check_name, model_of, rows_of, shard_of, target_of

Component = Annotated[Optional[str], typer.Option(metavar="NAME", help="only this component")]


@cli.command()
def diff(
    context: typer.Context,
    model: ModelName,
    base: Annotated[str, typer.Argument(metavar="A", help="the checkpoint to compare with: 11, best, ...")],
    other: Annotated[str, typer.Argument(metavar="B", help="the other one: a ref, or namespace/name@REF")],
    component: Component = None,
    numeric: Annotated[bool, typer.Option("--numeric", help="measure how far changed tensors are apart")] = False,
    all_keys: Annotated[bool, typer.Option("--all", help="list the keys that are the same, too")] = False,
    run: Run = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """List the tensors that changed from checkpoint A to checkpoint B, those that changed most first."""
    with session(context, url, token, json=json) as at:
        found = at.client.model(model_of(model), run).diff(base, other, component=component, numeric=numeric)
        if at.json:
            document = {"base": found.base, "other": found.other, "summary": found.summary, "items": found.items}
            text.say_json(document)
        else:
            _diff_table(found, all_keys=all_keys)


def _diff_table(found: Diff, *, all_keys: bool) -> None:
    text.say(str(found))
    items = found.of("changed", "moved", "added", "removed", *(["same"] if all_keys else []))
    header = ["STATUS", "COMPONENT", "KEY", "TENSOR", "MAX ABS", "L2", "RELATIVE L2", "COSINE", "NOTE"]
    rows = [
        [
            item.status,
            item.component or text.ABSENT,
            item.key if item.moved_from is None else f"{item.moved_from} -> {item.key}",
            item.form,
            *(number_text(number) for number in (item.max_abs, item.l2, item.relative_l2, item.cosine)),
            item.note or "",
        ]
        for item in items
    ]
    if rows:
        text.say()
        text.table(*_without_empty(header, rows), right=header[4:8])


def _without_empty(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Leave out the columns without any text."""
    kept = [number for number in range(len(header)) if any(row[number] for row in rows)]
    return [header[number] for number in kept], [[row[number] for number in kept] for row in rows]


@cli.command()
def stats(
    context: typer.Context,
    target: Target,
    ref: Annotated[Optional[str], typer.Argument(metavar="[REF]", help="instead of @REF")] = None,
    component: Component = None,
    include: Annotated[Texts, typer.Option(metavar="GLOB", help="keys to look at; may be repeated")] = None,
    run: Run = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Show the extremes, mean, std, norm, zeros, NaN and infinities of a checkpoint's tensors."""
    wanted = target_of(target if ref is None else f"{model_of(target)}@{ref}")
    with session(context, url, token, json=json) as at:
        found = at.client.model(wanted.model, run).stats(wanted.ref, component=component, include=include or ())
        text.say_json({"checkpoint": found.checkpoint, "items": found.tensors}) if at.json else _stats_table(found)


def _stats_table(found: Stats) -> None:
    text.say(str(found))
    header = ["KEY", "SHAPE", "DTYPE", "MIN", "MAX", "MEAN", "STD", "L2", "ZEROS", "NAN", "INF", "NOTE"]
    rows = [
        [
            each.key if not each.component else f"{each.component}  {each.key}",
            shape_text(each.shape),
            each.dtype,
            *(number_text(number) for number in (each.min, each.max, each.mean, each.std, each.l2)),
            *(number_text(count) for count in (each.zeros, each.nan, each.inf)),
            each.skipped or "",
        ]
        for each in found
    ]
    if rows:
        text.say()
        text.table(*_without_empty(header, rows), right=header[3:11])


@cli.command()
def tensor(
    context: typer.Context,
    model: ModelName,
    ref: Annotated[str, typer.Argument(metavar="REF", help="12, latest, best, ...")],
    key: Annotated[str, typer.Argument(metavar="KEY", help="the tensor's key; an optimizer's is dotted")],
    rows: Annotated[
        Optional[str], typer.Option(metavar="START:STOP", help="only these rows; negative ones count from the end")
    ] = None,
    shard: Annotated[
        Optional[str], typer.Option(metavar="NUMBER/COUNT", help="only this part, from 0 on, as torch.chunk cuts")
    ] = None,
    dim: Annotated[Optional[int], typer.Option(help="the dimension that --shard cuts (0)")] = None,
    dtype: Annotated[Optional[str], typer.Option(help="dtype to cast floats to: float32, float16 or bfloat16")] = None,
    component: Component = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="file or folder to write to (.)")
    ] = Path(),
    run: Run = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Download one tensor, or a part of it, as a safetensors file."""
    part, wanted = rows_of(rows), shard_of(shard)
    check_name(output, "safetensors")
    with session(context, url, token, json=json) as at:
        of = at.client.model(model_of(model), run)
        checkpoint = of.checkpoint(ref)
        path = of.download_tensor(
            checkpoint, key, output, rows=part, dim=dim, shard=wanted, dtype=dtype, component=component
        )
        size = path.stat().st_size
        if at.json:
            version = checkpoint.version
            text.say_json({"model": of.name, "version": version, "key": key, "path": str(path), "bytes": size})
        else:
            text.say(f"{checkpoint}  {path}, {decimal(size)}")
