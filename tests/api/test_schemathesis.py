"""Every route gets requests made from OpenAPI, and worse ones: none fails, and none gives an undocumented answer."""

from collections.abc import Iterator

import pytest

from tests.api.conftest import general
from tests.support.measure import long, measure
from tests.support.routes import OPERATIONS
from tests.support.server import Server, start_server

EXAMPLES, ONE_IN = measure((2, 12), (60, 1))
"""With ``make test``, a twelfth of the requests that are made for each route are sent."""

VERSIONS = 30


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_server(tmp_path_factory.mktemp("fuzzed") / "data", env={"STATEROOM_DURABLE": "off"})
    with server.client() as http:
        for epoch in range(VERSIONS):
            http.post("/v1/models/fuzz/net/checkpoints", content=general(epoch)).raise_for_status()
    yield server
    server.kill()


@long
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_route_fails_or_answers_what_it_does_not_document(method: str, path: str, fuzzed: Server) -> None:
    from tests.api.made_requests import send

    send(method, path, fuzzed.base_url, examples=EXAMPLES, one_in=ONE_IN)
