import json
import pickle

import httpx
import pytest

from app.api import problems
from stateroom import (
    InvalidRequest,
    NoKeysMatched,
    NotACheckpoint,
    NotFound,
    PartialLoadError,
    ServerError,
    ServerUnavailable,
    StateroomError,
    UnsafeGlobals,
)
from stateroom._errors import ERROR_OF_CODE, error_of

REQUEST = httpx.Request("GET", "http://host/v1/models/a/b")


def answer(status: int, problem: dict[str, object] | None = None, **headers: str) -> StateroomError:
    content = b"<h1>Bad</h1>" if problem is None else json.dumps(problem).encode()
    kind = "text/html" if problem is None else "application/problem+json"
    return error_of(httpx.Response(status, headers={"Content-Type": kind, **headers}, content=content, request=REQUEST))


@pytest.mark.parametrize("code", ERROR_OF_CODE)
def test_each_code_has_its_own_error(code: str) -> None:
    error = answer(422, {"code": code, "detail": "why"})
    assert type(error) is ERROR_OF_CODE[code]
    assert (error.code, error.status, error.detail, str(error)) == (code, 422, "why", "why")


def test_a_refusal_keeps_its_rule_and_place() -> None:
    error = answer(422, {"code": "not-a-checkpoint", "detail": "why", "rule": "zip-record", "where": "data.pkl"})
    assert isinstance(error, NotACheckpoint)
    assert (error.rule, error.where) == ("zip-record", "data.pkl")


def test_a_selection_error_keeps_the_near_misses() -> None:
    error = answer(422, {"code": "no-keys-matched", "detail": "why", "near": ["conv1", "conv2"]})
    assert isinstance(error, NoKeysMatched)
    assert error.near == ("conv1", "conv2")


def test_every_status_becomes_an_error_even_without_a_problem() -> None:
    for status in range(300, 600):
        error = answer(status)
        assert error.status == status
        assert error.code is None
        assert isinstance(error, ServerError) is (status >= 500 or status in {408, 429}) or status == 507


def test_an_unknown_code_falls_back_to_the_status() -> None:
    assert type(answer(422, {"code": "new-rule", "detail": "why"})) is InvalidRequest
    assert type(answer(404, {"code": "new-thing", "detail": "why"})) is NotFound
    assert type(answer(503, {"code": "new-trouble", "detail": "why"})) is ServerUnavailable


def test_a_404_that_is_not_the_servers_is_no_missing_checkpoint() -> None:
    assert type(answer(404)) is NotFound


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"null", b'"text"'])
def test_a_broken_problem_is_still_an_error(content: bytes) -> None:
    headers = {"Content-Type": "application/problem+json"}
    error = error_of(httpx.Response(400, headers=headers, content=content, request=REQUEST))
    assert type(error) is InvalidRequest
    assert "400" in error.detail


def test_a_redirect_says_where_the_server_is() -> None:
    error = answer(308, Location="https://host/v1/models/a/b")
    assert "https://host/v1/models/a/b" in error.detail


def test_errors_survive_the_way_between_processes() -> None:
    error = answer(422, {"code": "no-keys-matched", "detail": "why", "near": ["conv1"]})
    for original in (error, UnsafeGlobals("why", ["os.system"]), PartialLoadError("why", ["a"], ["b"])):
        copy = pickle.loads(pickle.dumps(original))
        assert type(copy) is type(original)
        assert vars(copy) == vars(original)


def test_no_status_of_the_servers_own_table_is_taken_for_another_kind() -> None:
    for kind in problems.KINDS.values():
        error = answer(kind.status, {"code": "anything", "detail": "why"})
        assert isinstance(error, ServerError) is (kind.status in {408, 500, 501, 503}), kind
