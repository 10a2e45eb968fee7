"""Requests to URLs that users gave."""

import ipaddress
import socket
import threading
from contextlib import closing, suppress

import pytest

from app.errors import InvalidRequest
from app.notify.outgoing import Outgoing, Target, Unsent, check_url, connection, is_public
from tests.support.receiver import Receiver
from tests.support.waiting import LONG_ENOUGH


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("1.1.1.1", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.1.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff0e::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:1.1.1.1", True),
        ("64:ff9b::a00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_an_address_is_public_or_not_however_it_is_written(address: str, expected: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is expected


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:10.0.0.1]",
        "169.254.169.254",
        "2130706433",
        "0x7f.1",
        "0",
    ],
)
def test_a_host_with_an_address_that_is_not_public_is_refused(host: str) -> None:
    for url in (f"http://{host}/hook", f"https://{host}/hook?x=1"):
        with pytest.raises(InvalidRequest, match="is not public") as refused:
            check_url(url, private=False)
        assert refused.value.code == "private-address"
        with pytest.raises(Unsent, match="is not public"):
            Outgoing(private=False).post(url, b"{}", {})
        check_url(url, private=True)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ci.example",
        "ftp://1.1.1.1/",
        "file:///etc/passwd",
        "http://",
        "http:///x",
        "http://user:secret@1.1.1.1/",
        "http://1.1.1.1:99999/",
        "http://1.1.1.1/\r\nX: y",
        "http://1.1.1.1/a b",
        "http://b\u00fccher.example/",
        "http://[::1/",
        "http://1.1.1.1/" + "x" * 2_000,
    ],
)
def test_what_is_no_url_for_a_webhook_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_url(url, private=True)
    assert refused.value.code == "bad-webhook-url"


def test_the_connection_goes_to_the_address_that_was_checked(receiver: Receiver) -> None:
    """The host of this URL has no address at all, so nobody can have looked it up again."""
    with closing(connection(Target(False, "receiver.invalid", receiver.port, "/hook"), "127.0.0.1", 60)) as wire:
        wire.request("POST", "/hook", b"{}")
        assert wire.getresponse().status == 204
    assert [request["headers"]["host"] for request in receiver.seen] == [f"receiver.invalid:{receiver.port}"]


def test_a_receiver_that_trickles_is_cut_off_and_no_redirect_is_followed(receiver: Receiver) -> None:
    assert Outgoing(private=True, seconds=LONG_ENOUGH).post(f"{receiver.url}/moved", b"{}", {}) == 302
    assert [request["path"] for request in receiver.seen] == ["/moved"]
    gone = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            accepted, _ = listener.accept()
            with accepted, suppress(OSError):
                while not gone.wait(0.02):
                    accepted.send(b"H")

        thread = threading.Thread(target=trickle)
        thread.start()
        with pytest.raises(Unsent):
            Outgoing(private=True, seconds=0.5).post(f"http://127.0.0.1:{listener.getsockname()[1]}/", b"{}", {})
        gone.set()
        thread.join()
