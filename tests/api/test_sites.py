"""The rules for the Host header, and for web pages that may write, without a server."""

import pytest

from app.api.middleware.sites import Host, Sites, parse_host

ANY = Sites(any_address=True)
NAMED = Sites(frozenset({"models.example", "gpu:9000"}), frozenset({"https://app.example"}))


@pytest.mark.parametrize(
    "given",
    ["127.0.0.1", "127.9.8.7:1", "localhost", "LocalHost:8765", "localhost.", "me.localhost:3000", "[::1]",
     "[::1]:8765", "[::ffff:127.0.0.1]"],
)  # fmt: skip
def test_loopback_is_always_answered_to(given: str) -> None:
    assert Sites().answers_to(parse_host([given], "1.1"))


@pytest.mark.parametrize(
    "given",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost", "10.0.0.7:8765", "0.0.0.0",
     "[2001:db8::1]", "2130706433", "127.1", "0x7f000001", "xn--lcalhost-3ya"],
)  # fmt: skip
def test_on_loopback_no_other_host_is_answered_to(given: str) -> None:
    assert not Sites().answers_to(parse_host([given], "1.1"))


def test_an_address_cannot_be_rebound_so_it_will_do_where_others_may_come() -> None:
    for given in ("10.0.0.7:8765", "[2001:db8::1]", "192.168.1.2"):
        assert ANY.answers_to(parse_host([given], "1.1"))
    for given in ("evil.example", "10.0.0.7.evil.example", "167772167"):
        assert not ANY.answers_to(parse_host([given], "1.1"))


def test_an_allowed_host_without_a_port_stands_for_every_port() -> None:
    for given in ("models.example", "MODELS.example:1", "models.example.", "gpu:9000"):
        assert NAMED.answers_to(parse_host([given], "1.1"))
    for given in ("gpu", "gpu:9001", "a.models.example", "models.example.evil"):
        assert not NAMED.answers_to(parse_host([given], "1.1"))


@pytest.mark.parametrize(
    "given", [[], ["a", "b"], [""], ["a b"], ["me@a"], ["a/b"], ["a:b"], ["a:1:2"], ["[::1"], ["a\\b"], ["a:123456"]]
)
def test_anything_but_one_valid_host_is_an_error(given: list[str]) -> None:
    with pytest.raises(ValueError, match="Host"):
        parse_host(given, "1.1")


def test_http_1_0_may_leave_the_host_out_but_not_say_two() -> None:
    assert parse_host([], "1.0") is None
    with pytest.raises(ValueError, match="exactly one"):
        parse_host(["a", "b"], "1.0")


HERE = Host("localhost", "8765")


@pytest.mark.parametrize(
    ("origin", "fetch_site"),
    [("https://evil.example", None), ("null", None), ("http://localhost:3000", "same-site"), ("http://localhost", None),
     (None, "cross-site"), (None, "same-site"), (None, "Cross-Site"), ("https://evil.example", "same-origin"),
     ("http://localhost:8765", "cross-site"), ("", None), ("file://", None), ("http://localhost:8765, null", None),
     ("chrome-extension://localhost:8765", None), ("http://app.example", None), ("https://app.example:8443", None)],
)  # fmt: skip
def test_a_page_of_another_site_is_foreign(origin: str | None, fetch_site: str | None) -> None:
    assert NAMED.is_foreign(HERE, origin, fetch_site)


@pytest.mark.parametrize(
    ("origin", "fetch_site"),
    [(None, None), (None, "none"), (None, "same-origin"), ("http://localhost:8765", "same-origin"),
     ("https://LOCALHOST:8765", None), ("https://app.example", "cross-site"), ("https://App.Example", None)],
)  # fmt: skip
def test_clients_own_pages_and_named_sites_are_not(origin: str | None, fetch_site: str | None) -> None:
    assert not NAMED.is_foreign(HERE, origin, fetch_site)


def test_default_ports_need_not_be_said() -> None:
    assert not Sites().is_foreign(Host("models.example", ""), "https://models.example", None)
    assert not Sites().is_foreign(Host("models.example", "443"), "https://models.example", None)
    assert Sites().is_foreign(Host("models.example", "8443"), "https://models.example", None)
