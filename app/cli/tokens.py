"""``token add | list | revoke``: beside a running server, or before there is one."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import StateroomError, StoreError
from ..settings import Settings
from ..values import expiry
from ..values.checkpoint import is_name
from ..values.token import MOST_NAMESPACES, Scope, Token, is_token_name, limits, new_token
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
        catalog.check()
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
            catalog.check()
        except StoreError:
            if settings.catalog_file is not None:  # an older file, which the server is going to migrate
                return False
            raise
        with catalog.read() as session:
            return tokens.any_ever(session)


def parse_expiry(text: str, now: datetime) -> datetime:
    """Parse an expiry as ``values.expiry`` does. Raises typer.BadParameter."""
    try:
        return expiry.parse_expiry(text, now)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _checked_name(name: str) -> str:
    if not is_token_name(name):
        raise typer.BadParameter(
            f"{name!r} is not a valid token name: use 1 to 64 letters, digits, '.', '_' or '-', not the form of an id"
        )
    return name


def _checked_namespaces(namespaces: list[str] | None) -> list[str] | None:
    for namespace in namespaces or ():
        if not is_name(namespace):
            raise typer.BadParameter(
                f"{namespace!r} is not a valid namespace: the namespace of the model vision/resnet50 is vision"
            )
    if len(namespaces or ()) > MOST_NAMESPACES:
        raise typer.BadParameter(f"a token has at most {MOST_NAMESPACES} namespaces")
    return namespaces


Name = Annotated[str, typer.Argument(help="name in lists and logs", callback=_checked_name)]


@commands.command()
def add(
    name: Name,
    scope: Annotated[Scope, typer.Option(help="read; write: also upload and change; admin: also delete")],
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            help="limit the token to this namespace; may be repeated", callback=_checked_namespaces, metavar="NS"
        ),
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
    token, text = new_token(name, scope, frozenset(namespace) if namespace else None, now, expires_at)
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
        where = "everywhere" if token.namespaces is None else f"in the namespace {_names(token)}"
        if len(token.namespaces or ()) > 1:
            where = f"in the namespaces {_names(token)}"
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
    header = ("NAME", "ID", "SCOPE", "NAMESPACE", "MADE", "EXPIRES", "LAST USED", "STATE")
    rows: list[tuple[str, ...]] = [header]
    for token in found:
        times = map(_shown, (token.created_at, token.expires_at, token.last_used_at))
        rows.append((token.name, token.id, token.scope.value, _names(token) or "-", *times, token.state(now)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(map(str.ljust, row, widths)).rstrip())


@commands.command()
def revoke(
    name: Annotated[str, typer.Argument(help="name or id in `token list`")],
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
        typer.echo(f"{token.name} is revoked; running servers refuse it within seconds.", err=True)


def _names(token: Token) -> str:
    return ",".join(sorted(token.namespaces or ()))


def _shown(time: datetime | None) -> str:
    return "-" if time is None else f"{time:%Y-%m-%d %H:%M} UTC"


def _json(token: Token, now: datetime) -> dict[str, Any]:
    def text(time: datetime | None) -> str | None:
        return None if time is None else time.isoformat().replace("+00:00", "Z")

    return {
        "name": token.name,
        "id": token.id,
        "scope": token.scope.value,
        **limits(token),
        "namespaces": None if token.namespaces is None else sorted(token.namespaces),
        "created_at": text(token.created_at),
        "expires_at": text(token.expires_at),
        "revoked_at": text(token.revoked_at),
        "last_used_at": text(token.last_used_at),
        "state": token.state(now),
    }
