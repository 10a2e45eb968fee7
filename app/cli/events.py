"""``events``: the audit log, read from the catalog, beside a running server or without one."""

import json
from typing import Annotated

import typer

from ..values.event import Event, EventFilter, EventKind
from .options import Config, DatabaseUrl, DataDir, complaining, read_settings
from .tokens import AsJson, opened_catalog

PAGE = 1_000


def events(
    after: Annotated[
        int | None, typer.Option(help="only events after this one (all that are kept)", metavar="ID")
    ] = None,
    kind: Annotated[list[EventKind] | None, typer.Option(help="only events of this kind; repeatable")] = None,
    config: Config = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List what was changed and who was refused, oldest first: when, by which token, from where. JSON is one document a
    line.
    """
    wanted = EventFilter(kinds=frozenset(kind or ()))
    with (
        complaining(),
        opened_catalog(read_settings(config=config, data_dir=data_dir, database_url=database_url)) as catalog,
    ):
        from ..catalog import events as recorded  # noqa: PLC0415 - as in tokens

        more = True
        while more:
            with catalog.read() as session:
                page = recorded.list_events(session, wanted, after, PAGE)
            for event in page.items:
                typer.echo(json.dumps(_json(event)) if as_json else _text(event))
            after, more = page.last, len(page.items) == PAGE


def _json(event: Event) -> dict[str, object]:
    return {
        "id": event.id,
        "kind": event.kind,
        "model": None if event.model is None else str(event.model),
        "version": event.version,
        "alias": event.alias,
        "at": event.at.isoformat().replace("+00:00", "Z"),
        "by": event.by,
        "address": event.address,
        "detail": dict(event.detail),
    }


def _text(event: Event) -> str:
    subject = "" if event.model is None else str(event.model)
    subject += "" if event.version is None else f"@{event.version}"
    detail = (f"{name}={value}" for name, value in event.detail.items() if value is not None)
    words = [
        str(event.id),
        f"{event.at:%Y-%m-%d %H:%M:%S}",
        event.kind,
        subject,
        event.alias,
        *detail,
        f"by {event.by}" if event.by else None,
        f"from {event.address}" if event.address else None,
    ]
    return "  ".join(word for word in words if word)
