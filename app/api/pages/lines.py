"""Lines to copy that load a part of a checkpoint: for curl, for Python, and for the command line. Pure.

Patterns and names of components come from files. Each line is quoted, so that a name is a word in it and nothing else,
and has no invisible character.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from ...select.query import StateDictQuery
from ...values.checkpoint import Checkpoint, ModelName

_PLAIN = "*/:,"
"""Characters that need no escape in the query of a URL, and are common in patterns."""


@dataclass(frozen=True, slots=True)
class Lines:
    """A selection in three languages. ``path`` is the path of the same download, with its query."""

    path: str
    curl: str
    python: str
    cli: str


def lines_of(checkpoint: Checkpoint, query: StateDictQuery, base: str, *, with_token: bool) -> Lines:
    """Write the lines for the server at ``base``. ``with_token``: the server has tokens, so curl needs one."""
    path = f"/v1/models/{checkpoint.model}/checkpoints/{checkpoint.version}/state_dict"
    asked = urlencode(list(_parameters(query)), quote_via=quote, safe=_PLAIN)
    address = f"{path}?{asked}" if asked else path
    file = f"{checkpoint.stem}.{query.format}"
    token = '-H "Authorization: Bearer $STATEROOM_TOKEN" ' if with_token else ""
    return Lines(
        path=address,
        curl=f"curl -f {token}-o {file} {shell_word(base + address)}",
        python=_python(checkpoint.model, checkpoint.version, query, base, file),
        cli=" ".join(_cli(f"{checkpoint.model}@{checkpoint.version}", query, base, file)),
    )


def shell_word(text: str) -> str:
    """Quote ``text`` as one word of a shell. Invisible characters are escaped as bash, zsh and ksh read them."""
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(map(_escaped, text)) + "'"


def _escaped(char: str) -> str:
    if char in "\\'":
        return "\\" + char
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode(errors="backslashreplace"))


def _parameters(query: StateDictQuery) -> Iterator[tuple[str, str]]:
    if query.component is not None:
        yield "component", query.component
    yield from (("include", pattern) for pattern in query.include)
    yield from (("exclude", pattern) for pattern in query.exclude)
    if query.device is not None:
        yield "device", query.device
    if query.dtype is not None:
        yield "dtype", query.dtype
    if query.format != "pt":
        yield "format", query.format


def _python(model: ModelName, version: int, query: StateDictQuery, base: str, file: str) -> str:
    given = [f"component={_literal(query.component)}"] if query.component is not None else []
    given += _lists("include", query.include) + _lists("exclude", query.exclude)
    given += [f"map_location={_literal(query.device)}"] if query.device is not None else []
    given += [f"dtype={_literal(query.dtype)}"] if query.dtype is not None else []
    if query.format == "pt":
        call = f"weights = model.state_dict({', '.join([str(version), *given])})"
    else:
        arguments = [str(version), _literal(file), *given, f"format={_literal(query.format)}"]
        call = f"model.download_state_dict({', '.join(arguments)})"
    return f"from stateroom import Client\n\nmodel = Client({_literal(base)}).model({_literal(str(model))})\n{call}"


def _lists(name: str, patterns: Sequence[str]) -> list[str]:
    return [f"{name}=[{', '.join(map(_literal, patterns))}]"] if patterns else []


def _literal(text: str) -> str:
    """Return ``text`` as Python writes it; in double quotes if it has no quote of its own."""
    literal = repr(text)
    return literal if '"' in literal else f'"{literal[1:-1]}"'


def _cli(target: str, query: StateDictQuery, base: str, file: str) -> Iterator[str]:
    yield from ("stateroom", "pull", target, "-o", file)
    options = [(name, value) for name, value in _parameters(query) if name != "format"]
    if not options:
        yield "--state-dict"
    yield from (f"--{name}={shell_word(value)}" for name, value in options)
    yield f"--url={shell_word(base)}"
