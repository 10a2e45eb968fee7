"""The outermost layers, around a misbehaving application."""

import asyncio
import logging

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from app.api.metrics import Metrics
from app.api.middleware.normalize import Normalize, is_head
from app.api.middleware.proxies import Proxies
from app.api.middleware.telemetry import Telemetry
from app.api.requests.paths import path_value
from tests.api.conftest import problem


async def misbehaving(scope: Scope, receive: Receive, send: Send) -> None:
    """``/early`` fails before its head, ``/late`` after it; any other path answers with what it was asked."""
    if scope["path"] == "/early":
        raise ValueError("the secret is /etc/shadow")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
    if scope["path"] == "/late":
        raise ValueError("too late")
    body = f"{scope['method']} {is_head(scope)} {path_value(scope['path'])}".encode()
    await send({"type": "http.response.body", "body": body})


def ask(method: str, path: str) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(Telemetry(Normalize(misbehaving), Metrics(), Proxies()))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            return await http.request(method, path)

    return asyncio.run(run())


def test_a_failure_says_nothing_but_a_request_id_that_the_log_knows(caplog: pytest.LogCaptureFixture) -> None:
    answer = ask("GET", "/early")
    assert problem(answer) == (500, "internal-error")
    assert "secret" not in answer.text
    record, *_ = caplog.records
    assert record.levelno == logging.ERROR
    assert answer.json()["request_id"] in record.message
    assert record.exc_info


def test_a_failure_after_the_head_goes_on_to_the_server_which_cuts_the_connection() -> None:
    with pytest.raises(ValueError, match="too late"):
        ask("GET", "/late")


def test_a_head_runs_as_a_get_and_has_no_body() -> None:
    assert ask("GET", "/a").text == "GET False /a"
    head = ask("HEAD", "/a")
    assert (head.content, head.headers["Content-Length"]) == (b"", "1000")


def test_an_encoded_slash_stays_in_its_segment() -> None:
    assert ask("GET", "/a/max:val%2Facc").text == "GET False /a/max:val/acc"
    assert ask("GET", "/a/b%20c%2fd").text == "GET False /a/b c/d"
