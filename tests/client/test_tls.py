"""The client over HTTPS: whom it trusts, and what a client costs."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from stateroom import Client, ServerUnavailable
from stateroom._http.retry import NO_SUCH_NAME
from stateroom._http.tls import tls_context
from tests.support.server import Server
from tests.support.tls import TlsFront, tls_front


@pytest.fixture
def front(server: Server, tmp_path: Path) -> Iterator[TlsFront]:
    with tls_front(server.port, tmp_path) as front:
        yield front


def test_large_tensors_travel_over_tls_both_ways(
    front: TlsFront, model_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(front.certificate))
    tensors = {"w": torch.randn(3_000_000), "b": torch.randn(7)}
    with Client(front.url, connections=3) as client:
        model = client.model(model_name)
        model.save({"state_dict": tensors}, epoch=1)
        loaded = model.state_dict("latest")
    assert all(torch.equal(loaded[key], tensor) for key, tensor in tensors.items())


def test_a_server_whose_certificate_nobody_vouches_for_is_not_talked_to(front: TlsFront, model_name: str) -> None:
    with Client(front.url) as client, pytest.raises(ServerUnavailable, match="certificate") as refused:
        list(client.model(model_name).checkpoints())
    assert "tried" not in str(refused.value), "another try would fail alike"


def test_a_host_that_does_not_exist_is_named_at_once() -> None:
    with pytest.raises(socket.gaierror) as unknown:
        socket.getaddrinfo("stateroom.invalid", 80)
    if unknown.value.errno not in NO_SUCH_NAME:
        pytest.skip("this machine's resolver does not say that a name does not exist")
    with Client("http://stateroom.invalid") as client, pytest.raises(ServerUnavailable) as refused:
        list(client.model("a/b").checkpoints())
    assert "tried" not in str(refused.value), "another try would fail alike"


def test_the_authorities_are_loaded_once_and_again_where_others_are_named(
    front: TlsFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tls_context()
    assert tls_context() is before
    monkeypatch.setenv("SSL_CERT_FILE", str(front.certificate))
    assert tls_context() is not before
    assert len(tls_context().get_ca_certs()) == 1
