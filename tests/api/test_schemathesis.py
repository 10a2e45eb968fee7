"""Every route gets requests made from OpenAPI, and worse ones: none fails, and none gives an undocumented answer."""

from collections.abc import Iterator

import pytest
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

from tests.api.conftest import general
from tests.support.measure import long, measure
from tests.support.routes import DOCUMENT, OPERATIONS
from tests.support.server import Server, start_server


def does_not_fail(_context: object, response: schemathesis.Response, _case: schemathesis.Case) -> None:
    """501 is an answer: the server knows that it cannot."""
    assert response.status_code not in {500, 503}


CHECKS = [
    does_not_fail,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = measure(12, 60)
"""Of each route."""

VERSIONS = 30
REFS = ("1", "v2", "latest", "best", "min:loss", "epoch:3", "step:1", "nightly", "31", "-1", "best ", "é")


@pytest.fixture(scope="module")
def schema() -> BaseSchema:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.hook(map_path_parameters)
    return schema


def map_path_parameters(context: object, path_parameters: dict | None) -> dict | None:
    """Most requests are about a model that exists; the rest about whatever was made up."""
    if path_parameters and "namespace" in path_parameters:
        choice = sum(map(ord, "".join(map(str, path_parameters.values()))))
        if choice % 5:
            path_parameters |= {"namespace": "fuzz", "name": "net"}
            if "ref" in path_parameters:
                path_parameters["ref"] = REFS[choice % len(REFS)]
    return path_parameters


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_server(tmp_path_factory.mktemp("fuzzed") / "data", env={"STATEROOM_DURABLE": "off"})
    with server.client() as http:
        for epoch in range(VERSIONS):
            http.post("/v1/models/fuzz/net/checkpoints", content=general(epoch)).raise_for_status()
    yield server
    server.kill()


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def check(case: schemathesis.Case, fuzzed: Server) -> None:
    case.call_and_validate(base_url=fuzzed.base_url, checks=CHECKS)


@long
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_route_fails_or_answers_what_it_does_not_document(
    method: str, path: str, schema: BaseSchema, fuzzed: Server
) -> None:
    """schema.parametrize() would make all requests of all routes as the tests are collected, in each process."""
    route = schema.include(method=method, path=path)
    (found,) = get_all_tests(schema=route, test_func=check, settings=None, given_kwargs={})
    _, test = found.ok()
    test(fuzzed=fuzzed)
