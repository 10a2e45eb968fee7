"""Output of events and webhooks for people."""

from __future__ import annotations

from collections.abc import Iterable

from .._event import Event
from .._printable import printable
from .._webhook import Webhook, WebhookDelivery
from .output import ABSENT, number_text, table, time_text


def events_table(events: Iterable[Event]) -> None:
    header = ["ID", "AT", "KIND", "VERSION", "ALIAS", "BY"]
    table(header, [_event_cells(event) for event in events], right=["ID", "VERSION"])


def event_text(event: Event) -> str:
    return "  ".join(printable(cell) for cell in _event_cells(event) if cell != ABSENT)


def change_text(event: Event) -> str:
    """Return what has just happened, and to which checkpoint, as one line."""
    subject = event.model or ""
    if event.version is not None:
        subject += f"@{event.version}"
    by = f"by {event.by}" if event.by else ""
    cells = f"{event.at.astimezone():%H:%M:%S}", event.kind, subject, event.alias or "", by
    return "  ".join(printable(cell) for cell in cells if cell)


def _event_cells(event: Event) -> list[str]:
    return [
        str(event.id),
        time_text(event.at),
        event.kind,
        number_text(event.version),
        event.alias or ABSENT,
        event.by or ABSENT,
    ]


def webhooks_table(webhooks: Iterable[Webhook]) -> None:
    rows = [[each.id, each.url, " ".join(each.kinds) or "all", time_text(each.created_at)] for each in webhooks]
    table(["WEBHOOK", "URL", "KINDS", "CREATED"], rows)


def deliveries_table(deliveries: Iterable[WebhookDelivery]) -> None:
    rows = [
        [
            str(each.event),
            each.kind,
            each.state,
            str(each.attempts),
            number_text(each.status),
            ABSENT if each.tried_at is None else time_text(each.tried_at),
            each.error or ABSENT,
        ]
        for each in deliveries
    ]
    header = ["EVENT", "KIND", "STATE", "ATTEMPTS", "STATUS", "TRIED", "ERROR"]
    table(header, rows, right=["EVENT", "ATTEMPTS", "STATUS"])
