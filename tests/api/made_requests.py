"""Requests that schemathesis makes from OpenAPI. To import this takes a second: only who sends them does."""

from functools import cache
from itertools import count

import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.pytest.lazy import get_all_tests
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.routes import DOCUMENT

REFS = ("1", "v2", "latest", "best", "min:loss", "epoch:3", "step:1", "nightly", "31", "-1", "best ", "é")


def does_not_fail(_context: object, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """501 is an answer: the server knows that it cannot. So is a 503 of /readyz, after a ping that took long."""
    assert response.status_code not in ({500} if case.path == "/readyz" else {500, 503})


CHECKS = [
    does_not_fail,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def map_path_parameters(_context: object, path_parameters: dict | None) -> dict | None:
    """Most requests are about a model that exists; the rest about whatever was made up."""
    if path_parameters and "namespace" in path_parameters:
        choice = sum(map(ord, "".join(map(str, path_parameters.values()))))
        if choice % 5:
            path_parameters |= {"namespace": "fuzz", "name": "net"}
            if "ref" in path_parameters:
                path_parameters["ref"] = REFS[choice % len(REFS)]
    return path_parameters


def ask_at_once(case: schemathesis.Case) -> None:
    """Wait for no event, and ask for no stream of them: it has no end."""
    if str(case.query.get("wait", "")).isdecimal():
        case.query["wait"] = 0
    if "text/event-stream" in case.headers.get("Accept", ""):
        del case.headers["Accept"]


@cache
def schema() -> BaseSchema:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.hook(map_path_parameters)
    return schema


@cache
def session() -> requests.Session:
    """Return the connections that all requests share."""
    session = requests.Session()
    session.trust_env = False
    return session


def send(method: str, path: str, base_url: str, *, examples: int, one_in: int) -> None:
    """Send one in so many of the requests of one route, and check every answer.

    ``examples`` of the requests are made up at random, after those with the bounds of each parameter.
    """
    made = count()

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def check(case: schemathesis.Case) -> None:
        if next(made) % one_in:
            return
        ask_at_once(case)
        case.call_and_validate(base_url=base_url, session=session(), checks=CHECKS)

    route = schema().include(method=method, path=path)
    (found,) = get_all_tests(schema=route, test_func=check, settings=None, given_kwargs={})
    _, test = found.ok()
    test()
