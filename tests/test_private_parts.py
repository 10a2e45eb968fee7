"""The private parts of libraries that the server relies on are there. Their versions have upper bounds for that reason:
raise a bound only after this passes, and read what changed.
"""

import inspect
import tomllib

import pytest
from prometheus_client import multiprocess, values
from uvicorn import Config, Server
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tests.support.docs import ROOT

PARTS = {
    HttpToolsProtocol: {
        *(
            "connection_made",
            "connection_lost",
            "data_received",
            "eof_received",
            "on_message_begin",
            "on_url",
            "on_header",
        ),
        *("on_headers_complete", "on_body", "on_message_complete", "on_response_complete", "shutdown"),
        *("_unset_keepalive_if_required", "_start_asgi_task"),
        *(
            "connections",
            "cycle",
            "expect_100_continue",
            "flow",
            "headers",
            "loop",
            "parser",
            "pipeline",
            "server_state",
        ),
        "transport",
    },
    RequestResponseCycle: {
        *("receive", "send", "run_asgi"),
        *("body", "disconnected", "expected_content_length", "message_event", "more_body", "response_complete"),
        *("response_started", "scope", "waiting_for_100_continue"),
    },
    FlowControl: {
        *("drain", "pause_reading", "pause_writing", "resume_reading", "resume_writing"),
        *("read_paused", "write_paused", "_transport", "_is_writable_event"),
    },
    Server: {"handle_exit", "run", "shutdown", "startup", "server_state", "should_exit", "started"},
}


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
def test_what_is_overridden_or_set_in_uvicorn_is_there(kind: type) -> None:
    has = set(dir(kind)) | set(inspect.getsource(kind.__init__).replace("self.", " ").replace(":", " ").split())
    assert PARTS[kind] - has == set()


def test_what_is_taken_of_uvicorns_modules_is_there() -> None:
    assert httptools_impl.STATUS_LINE[200].startswith(b"HTTP/1.1 200 ")
    assert {"http", "ws", "lifespan", "loop"} <= set(inspect.signature(Config.__init__).parameters)


def test_prometheus_client_counts_by_worker_where_it_is_told_to() -> None:
    assert list(inspect.signature(values.MultiProcessValue).parameters) == ["process_identifier"]
    assert hasattr(values, "ValueClass")
    assert list(inspect.signature(multiprocess.mark_process_dead).parameters) == ["pid", "path"]


@pytest.mark.parametrize("name", ["uvicorn", "prometheus-client"])
def test_their_versions_have_an_upper_bound(name: str) -> None:
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert [need for need in needs if need.startswith(name) and ",<" in need]
