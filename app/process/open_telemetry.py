"""Traces for OpenTelemetry, sent by OTLP over HTTP. The variables are OpenTelemetry's own, and it reads them itself.

Its parts are imported, and its thread begins, in the process that serves requests: after the fork of a worker.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from threading import Lock, Timer
from typing import TYPE_CHECKING

from ..values.tracing import Facts, Trace, Tracer
from ..version import server_version

if TYPE_CHECKING:
    from opentelemetry.trace import Span
    from opentelemetry.trace import Tracer as OpenTelemetryTracer

MOST_STEPS = 200
"""Most steps of one request that are recorded: a download of a terabyte reads some 60,000 windows."""

FLUSH_SECONDS = 10
"""Seconds that the end waits for a collector that is away."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"

_log = logging.getLogger("stateroom.tracing")


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Tell whether the variables ask for traces, and this server can send them. Warns if it cannot."""
    endpoint = next((name for name in _ENDPOINTS if environment.get(name)), None)
    if endpoint is None or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return False
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        _log.warning("no traces are sent: this server speaks %s to %s, and not %s", _PROTOCOL, endpoint, protocol)
        return False
    if not _is_installed():
        _log.warning(
            "no traces are sent to %s: OpenTelemetry is not installed. Run pip install 'stateroom-server[otel]', or "
            "unset the variable",
            endpoint,
        )
        return False
    return True


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # of a package around it
        return False


@contextmanager
def opened_tracer() -> Iterator[Tracer]:
    """Record traces, and send them from a thread of this process. What is left is sent at the end."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - only if it is wanted
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above

    resource = Resource.create({"service.version": server_version()})
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):  # nobody has named it
        resource = resource.merge(Resource({"service.name": "stateroom-server"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield _Tracer(provider.get_tracer("stateroom", server_version()))
    finally:
        giving_up = Timer(FLUSH_SECONDS, exporter.shutdown)  # else it tries each batch again, for longer
        giving_up.start()
        provider.shutdown()
        giving_up.cancel()


class _Tracer:
    def __init__(self, tracer: "OpenTelemetryTracer") -> None:
        self._tracer = tracer

    @contextmanager
    def request(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Trace]:
        from opentelemetry.propagate import extract  # noqa: PLC0415 - as above
        from opentelemetry.trace import SpanKind, use_span  # noqa: PLC0415 - as above

        context = extract({name.decode("latin-1"): value.decode("latin-1") for name, value in headers})
        span = self._tracer.start_span(method, context, SpanKind.SERVER)
        trace = _Trace(self._tracer, span)
        try:
            # An exception's text is in the log. It may name what a user sent, so it is not sent elsewhere.
            with use_span(span, record_exception=False, set_status_on_exception=False):
                yield trace
        finally:
            trace.end()


class _Trace:
    """A request's span, with those of its steps."""

    def __init__(self, tracer: "OpenTelemetryTracer", span: "Span") -> None:
        self._tracer = tracer
        self._span = span
        self._lock = Lock()
        self._steps = 0 if span.is_recording() else MOST_STEPS
        self._left_out = 0
        self._ended = False

    @property
    def id(self) -> str:
        return f"{self._span.get_span_context().trace_id:032x}"

    def step(self, name: str, facts: Facts) -> AbstractContextManager[object]:
        with self._lock:
            if self._ended:  # work that the request has begun, and that goes on for others
                return nullcontext()
            if self._steps == MOST_STEPS:
                self._left_out += 1
                return nullcontext()
            self._steps += 1
        return self._tracer.start_as_current_span(
            name, attributes=facts, record_exception=False, set_status_on_exception=False
        )

    def describe(self, name: str, facts: Facts, *, failed: bool) -> None:
        from opentelemetry.trace import StatusCode  # noqa: PLC0415 - as above

        self._span.update_name(name)
        self._span.set_attributes(facts)
        if failed:
            self._span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        with self._lock:
            self._ended = True
            left_out = self._left_out
        if left_out:
            self._span.set_attribute("stateroom.steps_left_out", left_out)
        self._span.end()
