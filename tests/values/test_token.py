import pytest

from app.values.token import Scope, is_secret_of, is_token_name, new_token, parse_token
from tests.catalog.make import NOW


def test_a_token_says_whose_it_is_and_has_256_random_bits() -> None:
    token, text = new_token("a", Scope.READ, None, NOW, None)
    id_, secret = parse_token(text.encode())
    assert text == f"stateroom_{id_}_{secret.decode()}"
    assert (id_, len(bytes.fromhex(secret.decode()))) == (token.id, 32)
    assert secret.decode() not in repr(token)
    assert len({new_token("a", Scope.READ, None, NOW, None)[1] for _ in range(100)}) == 100


def test_only_its_own_secret_is_a_tokens() -> None:
    (token, text), (_, other) = (new_token("a", Scope.READ, None, NOW, None) for _ in range(2))
    assert is_secret_of(parse_token(text.encode())[1], token)
    assert not is_secret_of(parse_token(other.encode())[1], token)
    assert not is_secret_of(b"", token)


@pytest.mark.parametrize("secret", [b"", b"0" * 64])
def test_where_there_is_no_token_no_secret_is_right(secret: bytes) -> None:
    assert not is_secret_of(secret, None)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + b"0",
        lambda text: text + b"\n",
        lambda text: text.upper(),
        lambda text: text.replace(b"_", b"-"),
        lambda text: b" " + text,
        lambda text: text.replace(b"stateroom", b"stateroon"),
        lambda text: "stateroom_٤".encode() + text[11:],
        lambda _: b"",
        lambda _: b"\xff",
    ],
)
def test_what_is_no_token_is_none(change) -> None:
    text = new_token("a", Scope.READ, None, NOW, None)[1].encode()
    assert parse_token(text) is not None
    assert parse_token(change(text)) is None


def test_a_scope_covers_those_before_it() -> None:
    covered = {scope: [other.value for other in Scope if scope.covers(other)] for scope in Scope}
    assert covered == {"read": ["read"], "write": ["read", "write"], "admin": ["read", "write", "admin"]}


@pytest.mark.parametrize("name", ["ci-1.x_y", "1", "a" * 64])
def test_a_name_is_plain(name: str) -> None:
    assert is_token_name(name)


@pytest.mark.parametrize("name", ["", "a" * 65, "-a", "a b", "ä", "a\n", "a/b"])
def test_what_is_not_plain_is_no_name(name: str) -> None:
    assert not is_token_name(name)
