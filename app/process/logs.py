"""The log on standard error, one line for each request: JSON for programs, text for people."""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal


class JsonLines(logging.Formatter):
    """Formatter of records as lines: time, level, logger, process, message or fields, and a traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
        }
        fields = getattr(record, "fields", None)
        if fields is None:
            line["message"] = record.getMessage()
        else:
            line |= fields
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextLines(logging.Formatter):
    """Formatter of records as lines for a person, in local time, and a traceback if any.

    Control characters, which may come from a client, are escaped: no request can make a line or speak to a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        text = f"{record.levelname.lower()}: {record.getMessage()}" if fields is None else _request_as_text(fields)
        lines = [f"{datetime.fromtimestamp(record.created).astimezone():%H:%M:%S} {_plain(text)}"]
        if record.exc_info:
            lines += (f"    {_plain(line)}" for line in self.formatException(record.exc_info).splitlines())
        return "\n".join(lines)


def _request_as_text(fields: Mapping[str, Any]) -> str:
    begin = fields["code"] if fields["method"] is None else f"{fields['method']} {fields['path']}"
    words = [
        f"{begin} {fields['status']}",
        f"{fields['seconds'] * 1000:,.0f} ms",
        f"{fields['bytes_in']:,} B in" if fields["bytes_in"] else None,
        f"{fields['bytes_out']:,} B out",
        fields["checkpoint"],
        fields["address"],
        fields["token"],
        "cut" if fields.get("cut") else None,
        f"id {fields['request_id']}",
    ]
    return "  ".join(word for word in words if word)


def _plain(text: str) -> str:
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _is_the_servers(record: logging.LogRecord) -> bool:
    """Return False for uvicorn's warnings about client input: a client has its answer, and could fill the log."""
    return record.levelno > logging.WARNING or record.module != "httptools_impl"


def start_log(wanted: Literal["text", "json"] | None) -> None:
    """Log to standard error: warnings of all loggers, and every request. Unless told otherwise, as text on a terminal,
    and as JSON elsewhere.
    """
    handler = logging.StreamHandler(sys.stderr)
    as_text = sys.stderr.isatty() if wanted is None else wanted == "text"
    handler.setFormatter(TextLines() if as_text else JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("stateroom").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").addFilter(_is_the_servers)
