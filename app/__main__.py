"""The server's command line: ``python -m app serve | migrate | sweep | fsck | backup | restore | events | token``."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from .cli import tokens as token_commands
from .cli.backups import backup, restore
from .cli.events import events
from .cli.options import Config, DatabaseUrl, DataDir, StoreUrl, complain, complaining, read_settings
from .private import UMASK
from .settings import Settings
from .version import server_build, server_version

HOW_TO_GUARD_IT = """\
Anyone who can reach {host} could read, write and delete every checkpoint. Make a token in this data dir or database:
  stateroom-server token add NAME --scope read|write|admin
or set a token with all rights:
  export STATEROOM_SERVER_TOKEN=$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')
and give it to clients as STATEROOM_TOKEN; or pass --insecure if this port is protected in another way."""

cli = typer.Typer(
    name="stateroom-server",
    help="A checkpoint service for PyTorch. Options can also be set as STATEROOM_HOST, STATEROOM_PORT, ...",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cli.add_typer(token_commands.commands, name="token")
for command in (events, backup, restore):
    cli.command()(command)

Grace = Annotated[float | None, typer.Option(help="seconds to keep purged bytes (3600)", metavar="SECONDS")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def _say_version(asked: bool) -> None:
    if asked:
        build = server_build()
        typer.echo(f"stateroom-server {server_version()}" + (f" ({build})" if build else ""))
        raise typer.Exit


@cli.callback()
def stateroom_server(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Options that stand before the command."""


def refusal(settings: Settings) -> str | None:
    """Return why a server must not start with these settings, if so. Raises StoreError if that cannot be known."""
    if not settings.open_to_others or settings.server_token or settings.insecure:
        return None
    return None if token_commands.was_any_made(settings) else HOW_TO_GUARD_IT.format(host=settings.host)


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="address to listen on (127.0.0.1)")] = None,
    port: Annotated[int | None, typer.Option(help="0 takes a free one (8765)")] = None,
    config: Config = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    store_url: StoreUrl = None,
    workers: Annotated[int | None, typer.Option(help="processes that share the port (1)")] = None,
    max_uploads: Annotated[int | None, typer.Option(help="uploads at once in each worker (128)")] = None,
    max_upload_bytes: Annotated[
        str | None, typer.Option(help="largest upload: 20000000000 or 20GB (no limit)", metavar="SIZE")
    ] = None,
    insecure: Annotated[bool | None, typer.Option("--insecure", help="serve other machines without a token")] = None,
    grace: Grace = None,
    sweep_interval: Annotated[
        float | None, typer.Option(help="seconds between sweeps; 0 for none (600)", metavar="SECONDS")
    ] = None,
    trash: Annotated[
        str | None, typer.Option(help="time of deleted checkpoints in the trash; 0 for none (7d)", metavar="TIME")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="text or json (text on a terminal, else json)", metavar="FORMAT")
    ] = None,
) -> None:
    """Run the server."""
    settings = read_settings(
        config=config,
        host=host,
        port=port,
        data_dir=data_dir,
        database_url=database_url,
        store_url=store_url,
        workers=workers,
        max_uploads=max_uploads,
        max_upload_bytes=max_upload_bytes,
        insecure=insecure,
        grace=grace,
        sweep_interval=sweep_interval,
        trash=trash,
        log_format=log_format,
    )
    with complaining():
        problem = refusal(settings)
    if problem:
        complain(problem)
        raise typer.Exit(2)
    from .process.serve import serve as run  # noqa: PLC0415 - a wrong option is answered before the frameworks are loaded

    with complaining():
        run(settings)


@cli.command()
def migrate(config: Config = None, data_dir: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """Create or upgrade the database's tables."""
    settings = read_settings(config=config, data_dir=data_dir, database_url=database_url)
    from .maintenance import migrate as run  # noqa: PLC0415 - as above

    with complaining():
        run(settings)


@cli.command()
def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="report what would be freed, but change nothing")] = False,
    empty_trash: Annotated[
        bool, typer.Option("--empty-trash", help="purge all of the trash, whatever its time left")
    ] = False,
    grace: Grace = None,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    store_url: StoreUrl = None,
) -> None:
    """Free the space of deleted checkpoints and crashed uploads. The server may be running."""
    settings = read_settings(
        config=config, grace=grace, data_dir=data_dir, database_url=database_url, store_url=store_url
    )
    from .maintenance import sweep as run  # noqa: PLC0415 - as above
    from .upkeep.report import swept_as_json, swept_as_text  # noqa: PLC0415 - as above

    with complaining():
        swept = run(
            settings,
            dry_run=dry_run,
            empty_trash=empty_trash,
            on_wait=lambda: complain("another sweep is running; waiting for it to end"),
        )
    typer.echo(json.dumps(swept_as_json(swept, dry_run=dry_run)) if as_json else swept_as_text(swept, dry_run=dry_run))
    if swept.damaged:
        raise typer.Exit(1)


@cli.command()
def fsck(
    read_data: Annotated[bool, typer.Option("--read-data", help="verify every byte, not only names and sizes")] = False,
    mark: Annotated[bool, typer.Option("--mark", help="--read-data, and let uploads replace damaged bytes")] = False,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    store_url: StoreUrl = None,
) -> None:
    """Check the catalog against the store. Changes nothing without --mark. Exits with 1 if anything is wrong."""
    settings = read_settings(config=config, data_dir=data_dir, database_url=database_url, store_url=store_url)
    from .maintenance import fsck as opened  # noqa: PLC0415 - as above
    from .upkeep.report import checked_as_json, checked_as_text, finding_as_text  # noqa: PLC0415 - as above

    findings = []
    with complaining(), opened(settings, read_data=read_data, mark=mark) as check:
        for finding in check.findings():
            findings.append(finding)
            if not as_json:
                typer.echo(finding_as_text(finding))
    found = len(findings)
    typer.echo(
        json.dumps(checked_as_json(check.checked, findings)) if as_json else checked_as_text(check.checked, found)
    )
    if findings:
        raise typer.Exit(1)


@cli.command(name="migrate-store")
def migrate_store(
    source: Annotated[str, typer.Argument(help="URL of the store that has the packs, such as file:///PATH")],
    target: Annotated[str, typer.Argument(help="URL of the store that gets them, such as s3://BUCKET/PREFIX")],
    config: Config = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Copy all packs to another store, and verify them. Servers may be running; run it again to go on."""
    for url in (source, target):
        read_settings(config=config, data_dir=data_dir, database_url=database_url, store_url=url)
    settings = read_settings(config=config, data_dir=data_dir, database_url=database_url)
    from .maintenance import migrate_store as run  # noqa: PLC0415 - as above

    count = copied = nbytes = 0
    problems = []
    with complaining():
        for each in run(settings, source, target):
            count += 1
            copied, nbytes = copied + (each.nbytes > 0), nbytes + each.nbytes
            if each.problem is not None:
                problems.append(each)
                complain(f"pack {each.pack} was not copied: {each.problem}")
    typer.echo(f"{count:,} packs: {copied:,} copied ({nbytes:,} bytes), {len(problems):,} not copied")
    if problems:
        raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Return 0 for success, 1 for failure, 2 for wrong arguments."""
    os.umask(UMASK)
    run: Callable[..., Any] = typer.main.get_command(cli)
    result = run(args=arguments, prog_name="stateroom-server", standalone_mode=True)
    return int(result or 0)


if __name__ == "__main__":
    sys.exit(main())
