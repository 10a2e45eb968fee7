"""Sessions in the catalog, on each database."""

from datetime import timedelta

from app.catalog import Catalog, sessions, tokens
from app.values.session import LIFETIME, Session, new_session, session_id
from tests.catalog.make import NOW


def begun(catalog: Catalog, maker: str, minutes: int) -> Session:
    session, text = new_session(maker, "seal", NOW + timedelta(minutes=minutes))
    assert session_id(text) == session.id
    assert text not in repr(session)
    with catalog.write() as w:
        sessions.add(w, session)
    return session


def known(catalog: Catalog, minutes: int = 0) -> set[str]:
    with catalog.read() as s:
        return set(tokens.credentials(s, NOW + timedelta(minutes=minutes)).sessions)


def test_a_session_is_there_until_it_expires_or_is_ended(catalog: Catalog) -> None:
    first, second = begun(catalog, "a", 0), begun(catalog, "b", 1)
    with catalog.read() as s:
        assert tokens.credentials(s, NOW).session(first.id) == first
    assert known(catalog) == {first.id, second.id}
    assert known(catalog, int(LIFETIME.total_seconds() // 60)) == {second.id}
    with catalog.write() as w:
        sessions.end(w, second.id)
        sessions.end(w, second.id)
    assert known(catalog) == {first.id}


def test_a_further_session_of_a_token_ends_its_oldest_one_and_deletes_what_has_expired(catalog: Catalog) -> None:
    other = begun(catalog, "other", 0)
    own = [begun(catalog, "own", number).id for number in range(sessions.MOST_OF_A_TOKEN + 2)]
    assert known(catalog) == {other.id, *own[2:]}
    late = begun(catalog, "late", int(LIFETIME.total_seconds() // 60) + 100)
    assert known(catalog) == {late.id}
