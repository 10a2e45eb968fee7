"""The server's command line: ``python -m app serve | migrate``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from .errors import StateroomError
from .settings import Settings

HOW_TO_GUARD_IT = """\
Anybody who reaches {host} could read, write and delete every checkpoint. Set a token, for example:
  export STATEROOM_SERVER_TOKEN=$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')
and give it to clients as STATEROOM_TOKEN; or pass --insecure if something else guards this port."""


def build_parser() -> argparse.ArgumentParser:
    """Options left out are None, so that the environment decides."""
    parser = argparse.ArgumentParser(prog="stateroom-server", description="A checkpoint service for PyTorch.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    database = argparse.ArgumentParser(add_help=False)
    database.add_argument("--data-dir", type=Path, metavar="DIR", help="everything it keeps (./stateroom-data)")
    database.add_argument("--database-url", metavar="URL", help="sqlite:///PATH (a file in the data dir)")
    server = commands.add_parser("serve", parents=[database], help="run the server")
    server.add_argument("--host", help="address to listen on (127.0.0.1)")
    server.add_argument("--port", type=int, help="0 takes a free one (8765)")
    server.add_argument("--store-url", metavar="URL", help="file:///PATH (a folder in the data dir)")
    server.add_argument(
        "--insecure", action="store_true", default=None, help="listen for other machines without a token"
    )
    commands.add_parser("migrate", parents=[database], help="create or upgrade the database's tables")
    return parser


def read_settings(options: argparse.Namespace) -> Settings:
    given = {name: value for name, value in vars(options).items() if value is not None and name != "command"}
    return Settings(**given)


def refusal(settings: Settings) -> str | None:
    """Why a server must not be started like this, if so."""
    if settings.open_to_others and not settings.server_token and not settings.insecure:
        return HOW_TO_GUARD_IT.format(host=settings.host)
    return None


def complain(problem: str) -> None:
    print(f"stateroom-server: {problem}", file=sys.stderr)  # noqa: T201 - a command line talks on its streams


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. 0: it did what was asked; 1: it could not; 2: it was asked wrongly."""
    options = build_parser().parse_args(arguments)
    try:
        settings = read_settings(options)
    except ValidationError as error:
        for mistake in error.errors():
            name = str(mistake["loc"][0])
            complain(f"--{name.replace('_', '-')} or STATEROOM_{name.upper()}: {mistake['msg']}")
        return 2
    from .main import migrate, serve  # noqa: PLC0415 - a wrong option is answered before the frameworks are loaded

    try:
        if options.command == "migrate":
            migrate(settings)
        elif problem := refusal(settings):
            complain(problem)
            return 2
        else:
            serve(settings)
    except (StateroomError, OSError) as error:
        complain(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
