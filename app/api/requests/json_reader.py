"""A JSON parser that reads one short value at a time, and stops at the first mistake.

A parser that reads a body in one call holds the GIL for the whole body, and makes objects that are then refused. This
parser walks the top-level object, and its long lists and objects, by itself. Only the values in them go to the C
scanner of ``json``, and each such value has at most MAX_VALUE characters. Text that has been read is freed.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed leaves it out
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_origin

from annotated_types import MaxLen
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, TypeAdapter, ValidationError

from ...formats.pickle.names import is_unicode

M = TypeVar("M", bound=BaseModel)

MAX_VALUE = 64 * 1024
"""Most characters of one value in a long list or object, and of any other top-level value."""

STEP = 64 * 1024
"""Bytes that are decoded at a time."""

LOOKAHEAD = 3
"""Characters that have to be decoded after a value: the scanner takes `1` of `1e+`, though more may follow."""

_BLANKS = re.compile(r"[ \t\n\r]*")
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # as above


def read_json(chunks: Iterator[bytes], model: type[M]) -> M:
    """Parse a body, given as ``chunks``, as ``model``. Raises RequestValidationError with the first mistake.

    A field whose type is a list or a dict is read item by item, and may have ``max_length`` items.
    """
    text = _Text(chunks)
    if text.peek() != "{":
        text.skip_value()
        refuse("model_type", (), "Input should be an object")
    fields = _fields(model)
    values: dict[str, Any] = {}
    for name in text.members():
        if name not in fields:
            refuse("extra_forbidden", (name,), f"There is no such field; the fields are {', '.join(fields)}")
        values[name] = fields[name].read(text, name)
    text.end()
    for name, field in model.model_fields.items():
        if field.is_required() and name not in values:
            refuse("missing", (name,), "Field required")
    return model.model_construct(**values)


def refuse(kind: str, place: tuple[str | int, ...], why: str) -> NoReturn:
    """Raise RequestValidationError, with one mistake as pydantic describes it."""
    raise RequestValidationError([{"type": kind, "loc": place, "msg": why}])


class _Text:
    """The body's text, with at most the value that is being read and STEP bytes in memory."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.context: dict[Any, Any] = {}
        """The context of validators that compare the values of one body."""
        self._steps = (chunk[i : i + STEP] for chunk in chunks for i in range(0, len(chunk), STEP))
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self._ended = False

    def peek(self) -> str:
        """Return the next non-blank character, without taking it; "" at the end."""
        while True:
            self._at = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]  # it matches anything
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, expected: str) -> str:
        """Take the next non-blank character, which has to be one of ``expected``."""
        found = self.peek()
        if not found or found not in expected:
            _malformed()
        self._at += 1
        return found

    def members(self) -> Iterator[str]:
        """Iterate over the names of the next object. Read the value of each name before going on."""
        self.take("{")
        if self.peek() == "}":
            self.take("}")
            return
        while True:
            if self.peek() != '"':
                _malformed()
            name = self._scanned(_string)
            if not isinstance(name, str) or not is_unicode(name):
                _malformed()
            self.take(":")
            yield name
            if self.take(",}") == "}":
                return

    def items(self) -> Iterator[None]:
        """Iterate over the items of the next list. Read each item before going on."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield
            if self.take(",]") == "]":
                return

    def value(self, place: tuple[str | int, ...]) -> Any:
        """Parse the next value, a short one."""
        if not self.peek():
            _malformed()
        return self._scanned(_scan, place)

    def skip_value(self) -> None:
        """Read and drop a value, to tell invalid JSON from JSON that is not an object."""
        self.value(())
        self.end()

    def end(self) -> None:
        if self.peek():
            _malformed()

    def _scanned(self, scan: Callable[[str, int], tuple[Any, int]], place: tuple[str | int, ...] = ()) -> Any:
        while True:
            try:
                value, end = scan(self._text, self._at)
            except (StopIteration, ValueError):  # invalid JSON, or not complete yet
                end = None
            except RecursionError:
                refuse("recursion_loop", place, "The value is nested too deeply")
            if end is not None and (end + LOOKAHEAD <= len(self._text) or self._ended):
                if end - self._at > MAX_VALUE:
                    refuse("too_long", place, f"A value here may have at most {MAX_VALUE:,} characters")
                self._at = end
                return value
            if len(self._text) - self._at > MAX_VALUE:
                refuse("too_long", place, f"A value here may have at most {MAX_VALUE:,} characters")
            if not self._more() and end is None:
                _malformed()

    def _more(self) -> bool:
        """Decode another step; False at the end."""
        if self._ended:
            return False
        step = next(self._steps, None)
        self._ended = step is None
        try:
            text = self._decoder.decode(step or b"", final=step is None)
        except UnicodeDecodeError:
            _malformed()
        self._text, self._at = self._text[self._at :] + text, 0
        return not self._ended


class _Value:
    """A field that is read as one short value."""

    def __init__(self, annotation: Any) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(annotation)

    def read(self, text: _Text, *place: str | int) -> Any:
        try:
            return self._adapter.validate_python(text.value(place), context=text.context)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            refuse(first["type"], (*place, *first["loc"]), first["msg"])


class _Long:
    """A field that is a list or an object of many values, read one by one."""

    def __init__(self, item: Any, *, named: bool, at_most: int | None) -> None:
        self._item = _Value(item)
        self._named = named
        self._at_most = at_most

    def read(self, text: _Text, *place: str | int) -> Any:
        kind = "an object" if self._named else "a list"
        if text.peek() != ("{" if self._named else "["):
            text.value(place)  # tells invalid JSON from another type
            refuse("type", place, f"Input should be {kind}")
        if self._named:
            members: dict[str, Any] = {}
            for name in text.members():
                members[name] = self._item.read(text, *place, name)
                self._check(len(members), kind, place)
            return members
        items: list[Any] = []
        for _ in text.items():
            items.append(self._item.read(text, *place, len(items)))
            self._check(len(items), kind, place)
        return items

    def _check(self, count: int, kind: str, place: tuple[str | int, ...]) -> None:
        if self._at_most is not None and count > self._at_most:
            refuse("too_long", place, f"Input should be {kind} of at most {self._at_most:,} items")


@cache
def _fields(model: type[BaseModel]) -> Mapping[str, _Value | _Long]:
    return {name: _field(field.annotation, field.metadata) for name, field in model.model_fields.items()}


def _field(annotation: Any, metadata: list[Any]) -> _Value | _Long:
    at_most = next((each.max_length for each in metadata if isinstance(each, MaxLen)), None)
    kind, arguments = get_origin(annotation), get_args(annotation)
    if kind is list:
        return _Long(arguments[0], named=False, at_most=at_most)
    if kind is dict and arguments[0] is str:
        return _Long(arguments[1], named=True, at_most=at_most)
    return _Value(Annotated[annotation, *metadata] if metadata else annotation)


def _string(text: str, at: int) -> tuple[str, int]:
    found: tuple[str, int] = scanstring(text, at + 1, True)
    return found


def _malformed() -> NoReturn:
    refuse("json_invalid", (), "It is not JSON")
