"""The log: one JSON object a line on standard error, one line for each request."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any


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


def _is_the_servers(record: logging.LogRecord) -> bool:
    """Return False for uvicorn's warnings about client input: a client has its answer, and could fill the log."""
    return record.levelno > logging.WARNING or record.module != "httptools_impl"


def log_as_json() -> None:
    """Log to standard error: warnings of all loggers, and every request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("stateroom").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").addFilter(_is_the_servers)
