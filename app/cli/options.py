"""Parts that the commands share: options, settings read from them, and error messages."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from ..config_file import exposed_secret
from ..errors import StateroomError
from ..settings import Settings, unknown_variables

# Options left out are None, so that the environment decides, and then the configuration file.
Config = Annotated[
    Path | None, typer.Option(help="TOML file of settings that no option or variable gives", metavar="FILE")
]
DataDir = Annotated[Path | None, typer.Option(help="folder for all data (./stateroom-data)", metavar="DIR")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(help="sqlite:///PATH or postgresql://... (a file in the data dir)", metavar="URL"),
]
StoreUrl = Annotated[
    str | None, typer.Option(help="file:///PATH or s3://BUCKET/PREFIX (a folder in the data dir)", metavar="URL")
]


def read_settings(**options: Any) -> Settings:
    """Read the settings. Exits with 2 and a line for each mistake; warns of other variables that look like settings."""
    for warning in unknown_variables(os.environ):
        complain(f"warning: {warning}")
    try:
        settings = Settings(**{name: value for name, value in options.items() if value is not None})
    except StateroomError as error:
        for line in error.detail.splitlines():
            complain(line)
    except ValidationError as error:
        for mistake in error.errors():
            name = str(mistake["loc"][0])
            variable = f"STATEROOM_{name.upper()}"
            is_of_file = options.get(name) is None and not os.environ.get(variable)
            where = f"{name} in the configuration file" if is_of_file else f"--{name.replace('_', '-')} or {variable}"
            complain(f"{where}: {mistake['msg'].removeprefix('Value error, ')}")
    else:
        if settings.config is not None and (exposed := exposed_secret(settings.config)):
            complain(f"warning: {exposed}")
        return settings
    raise typer.Exit(2)


def complain(problem: str) -> None:
    typer.echo(f"stateroom-server: {problem}", err=True)


@contextmanager
def complaining() -> Iterator[None]:
    """Report an error as one line and the exit code 1."""
    try:
        yield
    except (StateroomError, OSError) as error:
        complain(str(error))
        raise typer.Exit(1) from error
