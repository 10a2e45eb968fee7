"""``token add | list | revoke``: beside a running server, or before there is one."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import StateroomError, StoreError
from ..settings import Settings
from ..values.checkpoint import is_name
from ..values.duration import LONGEST, parse_duration
from ..values.token import Scope, Token, is_token_name, new_token
from .options import Config, DatabaseUrl, DataDir, complaining, read_settings

if TYPE_CHECKING:
    from ..catalog import Catalog

commands = typer.Typer(help="Make, list and revoke tokens.", no_args_is_help=True, rich_markup_mode=None)

AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def _is_missing(settings: Settings) -> bool:
    """Return whether the database is a file that is missing."""
    return settings.catalog_file is not None and not settings.catalog_file.exists()


@contextmanager
def opened_catalog(settings: Settings, *, make: bool = False) -> Iterator["Catalog"]:
    """Open the catalog. A database file is migrated as by ``serve``, and made if it is missing and ``make`` is true.

    Raises StateroomError for a missing file without ``make``, StoreError for a shared database that is not migrated.
    """
    if _is_missing(settings) and not make:
        raise StateroomError(f"there is no catalog at {settings.catalog_url}: check --data-dir and --database-url")
    from ..catalog import Catalog  # noqa: PLC0415 - a wrong option is answered before the database's libraries are loaded
    from ..data_dir import claim  # noqa: PLC0415 - as above
    from ..store import Room  # noqa: PLC0415 - as above

    if settings.database_url is None:
        claim(settings.data_dir, durable=settings.durable)
    with closing(Catalog(settings.catalog_url, durable=settings.durable)) as catalog:
        if settings.catalog_file is not None:
            reserve = settings.reserve_file
            # A token can be revoked on a full disk, too.
            Room(reserve.parent, reserve=reserve, size=settings.reserve).freeing(catalog.migrate)
        catalog.ping()
        yield catalog


def was_any_made(settings: Settings) -> bool:
    """Return whether the catalog ever had a token, so that a server asks for one. Makes nothing. Raises StoreError if a
    shared database does not answer.
    """
    if _is_missing(settings):
        return False
    from ..catalog import Catalog, tokens  # noqa: PLC0415 - as above

    with closing(Catalog(settings.catalog_url, durable=settings.durable)) as catalog:
        try:
            catalog.ping()
        except StoreError:
            if settings.catalog_file is not None:  # an older file, which the server is going to migrate
                return False
            raise
        with catalog.read() as session:
            return tokens.any_ever(session)


def parse_expiry(text: str, now: datetime) -> datetime:
    """Parse ``90d``, ``12h``, ``30m``, ``2w`` from now, or a date or time (in UTC, unless it says otherwise).

    Raises typer.BadParameter.
    """
    try:
        time = _time_of(text, now)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a time: use 90d, 12h, 2027-01-31 or 2027-01-31T18:00Z") from None
    if time <= now:
        raise typer.BadParameter(f"{text} is in the past: now is {_shown(now)}")
    if time > now + LONGEST:
        raise typer.BadParameter(
            f"{text} is more than a hundred years away: leave it out for a token that never expires"
        )
    return time


def _time_of(text: str, now: datetime) -> datetime:
    with suppress(ValueError):
        return now + parse_duration(text)
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _checked_name(name: str) -> str:
    if not is_token_name(name):
        raise typer.BadParameter(f"{name!r} is not a valid token name: use 1 to 64 letters, digits, '.', '_' or '-'")
    return name


def _checked_namespace(namespace: str | None) -> str | None:
    if namespace is not None and not is_name(namespace):
        raise typer.BadParameter(
            f"{namespace!r} is not a valid namespace: the namespace of the model vision/resnet50 is vision"
        )
    return namespace


Name = Annotated[str, typer.Argument(help="name in lists and logs", callback=_checked_name)]


@commands.command()
def add(
    name: Name,
    scope: Annotated[Scope, typer.Option(help="read; write: also upload and change; admin: also delete")],
    namespace: Annotated[
        str | None, typer.Option(help="limit the token to this namespace", callback=_checked_namespace, metavar="NS")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="expiry: 90d, 12h, 2027-01-31 (never)", metavar="WHEN")] = None,
    config: Config = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it. The token is not shown again."""
    now = datetime.now(UTC)
    try:
        expires_at = None if expires is None else parse_expiry(expires, now)
    except typer.BadParameter as error:
        error.param_hint = "'--expires'"
        raise
    token, text = new_token(name, scope, namespace, now, expires_at)
    with (
        complaining(),
        opened_catalog(
            read_settings(config=config, data_dir=data_dir, database_url=database_url), make=True
        ) as catalog,
    ):
        from ..catalog import tokens  # noqa: PLC0415 - as above

        with catalog.write() as session:
            tokens.add(session, token)
    if as_json:
        typer.echo(json.dumps({**_json(token, now), "token": text}))
    else:
        where = "everywhere" if namespace is None else f"in the namespace {namespace}"
        until = "" if expires_at is None else f" until {_shown(expires_at)}"
        typer.echo(f"{name} may {scope} {where}{until}. Its token is shown only now:", err=True)
        typer.echo(text)


@commands.command("list")
def list_(
    config: Config = None, data_dir: DataDir = None, database_url: DatabaseUrl = None, as_json: AsJson = False
) -> None:
    """List all tokens, also revoked and expired ones, without their secrets."""
    with (
        complaining(),
        opened_catalog(read_settings(config=config, data_dir=data_dir, database_url=database_url)) as catalog,
    ):
        from ..catalog import tokens  # noqa: PLC0415 - as above

        with catalog.read() as session:
            found = tokens.list_tokens(session)
    now = datetime.now(UTC)
    if as_json:
        typer.echo(json.dumps([_json(token, now) for token in found]))
        return
    rows = [("NAME", "ID", "SCOPE", "NAMESPACE", "MADE", "EXPIRES", "STATE")]
    for token in found:
        times = (_shown(token.created_at), _shown(token.expires_at))
        rows.append((token.name, token.id, token.scope.value, token.namespace or "-", *times, _state(token, now)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(map(str.ljust, row, widths)).rstrip())


@commands.command()
def revoke(
    name: Annotated[str, typer.Argument(help="name in `token list`")],
    config: Config = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a token and the links made with it. Its name cannot be used again."""
    now = datetime.now(UTC)
    with (
        complaining(),
        opened_catalog(read_settings(config=config, data_dir=data_dir, database_url=database_url)) as catalog,
    ):
        from ..catalog import tokens  # noqa: PLC0415 - as above

        with catalog.write() as session:
            token = tokens.revoke(session, name, now)
    if as_json:
        typer.echo(json.dumps(_json(token, now)))
    else:
        typer.echo(f"{name} is revoked; running servers refuse it within seconds.", err=True)


def _state(token: Token, now: datetime) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "good" if token.is_good(now) else "expired"


def _shown(time: datetime | None) -> str:
    return "-" if time is None else f"{time:%Y-%m-%d %H:%M} UTC"


def _json(token: Token, now: datetime) -> dict[str, Any]:
    def text(time: datetime | None) -> str | None:
        return None if time is None else time.isoformat().replace("+00:00", "Z")

    return {
        "name": token.name,
        "id": token.id,
        "scope": token.scope.value,
        "namespace": token.namespace,
        "created_at": text(token.created_at),
        "expires_at": text(token.expires_at),
        "revoked_at": text(token.revoked_at),
        "state": _state(token, now),
    }
