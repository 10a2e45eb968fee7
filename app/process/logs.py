"""The log: one JSON object a line on standard error, one line for each request."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any


class JsonLines(logging.Formatter):
    """A record as one line: time, level, logger, process, message or fields, and a traceback if it has one."""

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
    """False for uvicorn's warnings about what a client sent: it has its answer, and could fill the log with them."""
    return record.levelno > logging.WARNING or record.module != "httptools_impl"


def log_as_json() -> None:
    """Send what this process logs to standard error: warnings of everybody, and every request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("stateroom").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").addFilter(_is_the_servers)
