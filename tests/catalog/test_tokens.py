from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import create_engine

from app.catalog import Catalog, plans, tokens
from app.catalog.dialect import parse_url
from app.errors import Conflict, NotFound
from app.values.token import Scope, Token, is_secret_of, new_token, parse_token
from tests.catalog.make import NOW, downgrade, statements


def add(catalog: Catalog, name: str, **fields) -> tuple[Token, str]:
    token, text = new_token(
        name, fields.get("scope", Scope.READ), fields.get("namespaces"), NOW, fields.get("expires_at")
    )
    with catalog.write() as w:
        tokens.add(w, token)
    return token, text


def revoke(catalog: Catalog, name: str, now=NOW) -> Token:
    with catalog.write() as w:
        return tokens.revoke(w, name, now)


def good(catalog: Catalog, now=NOW) -> list[str]:
    with catalog.read() as s:
        found = tokens.credentials(s, now)
        return sorted(found.token(id_).name for id_ in found.rows)


def test_a_token_is_kept_as_it_was_made_and_found_by_its_id(catalog: Catalog) -> None:
    token, _ = add(
        catalog, "a", scope=Scope.WRITE, namespaces=frozenset({"vision", "nlp"}), expires_at=NOW + timedelta(days=1)
    )
    with catalog.read() as s:
        assert tokens.list_tokens(s) == (token,)
        assert tokens.credentials(s, NOW).token(token.id) == token
        assert tokens.credentials(s, NOW).token(token.id[:-1]) is None


def test_the_secret_is_nowhere_in_the_catalog(catalog: Catalog) -> None:
    _, text = add(catalog, "a")
    _, secret = parse_token(text.encode())
    with catalog.read() as s:
        row = s._connection.exec_driver_sql("SELECT * FROM tokens").one()
    assert secret.decode() not in repr(row)


def test_a_name_is_taken_once_and_for_all(catalog: Catalog) -> None:
    first, _ = add(catalog, "a")
    with pytest.raises(Conflict, match="the name a is taken: choose another"):
        add(catalog, "a")
    revoke(catalog, "a")
    with pytest.raises(Conflict, match="taken by a revoked token"):
        add(catalog, "a")
    with catalog.read() as s:
        assert [token.id for token in tokens.list_tokens(s)] == [first.id]


def test_a_revoked_token_stays_revoked_since_then(catalog: Catalog) -> None:
    add(catalog, "a")
    assert revoke(catalog, "a").revoked_at == NOW
    assert revoke(catalog, "a", NOW + timedelta(days=1)).revoked_at == NOW


def test_a_token_is_revoked_by_its_id_too(catalog: Catalog) -> None:
    add(catalog, "a")
    b, _ = add(catalog, "b")
    assert revoke(catalog, b.id).name == "b"
    assert good(catalog) == ["a"]


def test_what_is_no_token_cannot_be_revoked(catalog: Catalog) -> None:
    add(catalog, "a")
    with pytest.raises(NotFound, match="no token called 'b'"):
        revoke(catalog, "b")
    assert good(catalog) == ["a"]


def test_only_those_that_are_good_now_let_anybody_in(catalog: Catalog) -> None:
    for name, days in (("over", -1), ("just over", 0), ("good", 1), ("endless", None)):
        add(catalog, name, expires_at=None if days is None else NOW + timedelta(days=days))
    add(catalog, "revoked")
    revoke(catalog, "revoked")
    assert good(catalog) == ["endless", "good"]
    assert good(catalog, NOW + timedelta(days=2)) == ["endless"]


def test_a_token_is_good_to_the_very_moment_it_ends() -> None:
    token, _ = new_token("a", Scope.READ, None, NOW, NOW + timedelta(seconds=1))
    assert token.is_good(NOW + timedelta(microseconds=999_999))
    assert not token.is_good(NOW + timedelta(seconds=1))
    assert not replace(token, revoked_at=NOW).is_good(NOW)


def test_a_catalog_is_guarded_from_its_first_token_on_for_ever(catalog: Catalog) -> None:
    def guarded() -> bool:
        with catalog.read() as s:
            assert tokens.any_ever(s) is tokens.credentials(s, NOW).guarded
            return tokens.any_ever(s)

    assert not guarded()
    add(catalog, "a")
    assert guarded()
    revoke(catalog, "a")
    assert guarded()
    assert good(catalog) == []


def test_a_migrated_catalog_has_a_key_of_256_bits_for_links(catalog: Catalog) -> None:
    with catalog.read() as s:
        keys = tokens.credentials(s, NOW).keys
    assert [len(key) for key in keys.values()] == [32]


def test_all_credentials_are_four_statements_however_many_there_are(catalog: Catalog) -> None:
    for number in range(20):
        add(catalog, f"token-{number}")
    with statements(catalog) as seen, catalog.read() as s:
        assert len(tokens.credentials(s, NOW).rows) == 20
    assert len(seen) == 4


def test_so_many_tokens_are_good_at_once_and_no_more(catalog: Catalog) -> None:
    made = [new_token(f"t{i}", Scope.READ, None, NOW, None)[0] for i in range(tokens.MOST_GOOD - 1)]
    rows = [{"id": t.id, "name": t.name, "secret_hash": t.secret_hash, "scope": "read", "created_at": 0} for t in made]
    with catalog.write() as w:
        w.insert(tokens.tokens, rows)
    add(catalog, "last")
    with pytest.raises(Conflict, match="10,000 valid tokens"):
        add(catalog, "one-more")
    revoke(catalog, "t0")
    add(catalog, "in-its-place")
    assert len(good(catalog)) == tokens.MOST_GOOD


def last_used(catalog: Catalog) -> dict[str, datetime | None]:
    with catalog.read() as s:
        return {token.name: token.last_used_at for token in tokens.list_tokens(s)}


def use(catalog: Catalog, *ids: str, at: datetime) -> None:
    with catalog.write_own_rows() as w:
        tokens.note_uses(w, dict.fromkeys(ids, at))


def test_a_last_use_is_written_once_a_minute_whoever_writes_it(catalog: Catalog) -> None:
    (a, _), (b, _) = add(catalog, "a"), add(catalog, "b")
    assert last_used(catalog) == {"a": None, "b": None}
    use(catalog, a.id, "unknown", at=NOW)
    assert last_used(catalog) == {"a": NOW, "b": None}
    soon, later = NOW + timedelta(seconds=59), NOW + tokens.USES_APART
    use(catalog, a.id, b.id, at=soon)
    assert last_used(catalog) == {"a": NOW, "b": soon}
    use(catalog, b.id, a.id, at=later)
    assert last_used(catalog) == {"a": later, "b": soon}
    use(catalog, a.id, at=NOW)
    assert last_used(catalog)["a"] == later, "a clock that is behind changes nothing"


def test_a_reader_does_not_wait_for_a_writer_of_last_uses(catalog: Catalog) -> None:
    token, _ = add(catalog, "a")
    with catalog.write_own_rows() as w:
        tokens.note_uses(w, {token.id: NOW})
        assert good(catalog) == ["a"]
        assert last_used(catalog) == {"a": None}
    assert last_used(catalog) == {"a": NOW}


def test_servers_that_write_the_same_last_uses_wait_in_no_circle(catalog: Catalog, database_url: str) -> None:
    ids = [add(catalog, f"t{number}")[0].id for number in range(20)]
    times = [NOW + number * tokens.USES_APART for number in range(10)]

    def write(order: list[str]) -> None:
        with closing(Catalog(database_url, durable=False)) as other:
            for at in times:
                use(other, *order, at=at)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(write, order) for order in (ids, ids[::-1])]:
            done.result()
    assert set(last_used(catalog).values()) == {times[-1]}


def test_tokens_of_an_older_catalog_stay_as_they_were_and_none_gets_more_by_going_back(
    catalog: Catalog, database_url: str
) -> None:
    several, _ = add(catalog, "several", namespaces=frozenset({"a", "b"}))
    one, text = add(catalog, "one", namespaces=frozenset({"vision"}))
    everywhere, _ = add(catalog, "everywhere")
    catalog.close()
    downgrade(database_url, "0017")
    engine = create_engine(parse_url(database_url))
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT name, namespace, revoked_at FROM tokens ORDER BY name").all()
    engine.dispose()
    assert [tuple(row)[:2] for row in rows] == [("everywhere", None), ("one", "vision"), ("several", "a")]
    assert [row.revoked_at is None for row in rows] == [True, True, False]
    catalog.migrate()
    with catalog.read() as s:
        found = tokens.credentials(s, NOW)
    assert found.token(one.id) == one
    assert is_secret_of(parse_token(text.encode())[1], found.token(one.id))
    assert found.token(everywhere.id) == everywhere
    assert found.token(several.id) is None


def test_a_plan_that_is_kept_for_long_is_not_kept_shorter_by_another_warm_start(catalog: Catalog) -> None:
    def kept_until() -> int:
        with catalog.read() as s:
            return s._connection.exec_driver_sql("SELECT kept_until FROM plans").scalar_one()

    with catalog.write() as w:
        plans.keep(w, "a", "digest", "document")
    first = kept_until()
    with catalog.write() as w:
        plans.keep(w, "a", "digest", "document", timedelta(days=7))
    longer = kept_until()
    assert longer > first
    with catalog.write() as w:
        plans.keep(w, "a", "digest", "document")
    assert kept_until() == longer
