"""New files out of old ones: changes where the structure is, so that most of them are read to the end."""

import re
from collections.abc import Callable, Iterable, Sequence
from random import Random

from app.formats.pickle import opcodes as op
from tests.differential.damage import NUMBERS, damaged
from tests.formats.zips import Entry, Zip
from tests.fuzz.containers import header_of, pickle_of, with_header, zip_of
from tests.fuzz.tokens import Tokens, tokens_of, values_of

Mutate = Callable[[bytes, int], bytes]
"""libFuzzer's own: new bytes from old ones, and how many they may be."""

LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_JSON = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9.eE+]+|[a-z]+|.', re.DOTALL)
_FLAGS = (0, 1, 2, 8, 0x40, 0x800, 0x808)
_AFTER_A_VALUE = (b"\x85", b"0", b"2", b"Q", b")R", b")\x81", b"}b", b"Na", b"NNs", b"\x94")
"""Opcodes that take a value and leave one, or two, or none."""
MOST_LEARNT = 2000
LARGEST_LEARNT = 1500
_LONGEST_VALUE = 60
"""Tokens of a value that is kept to be put elsewhere."""


class Mutator:
    """``files`` are where foreign opcodes, values, records and words are taken from.

    Every other new file is made of one in ``accepted``, whatever libFuzzer has chosen: most of its corpus are files
    that are refused, each in a place of its own.
    """

    def __init__(self, files: Iterable[bytes], mutate: Mutate) -> None:
        self.accepted: list[bytes] = []
        self._mutate = mutate
        self._random = Random()
        tokens: dict[bytes, None] = {}
        values: dict[bytes, None] = {}
        words: dict[bytes, None] = {}
        records: dict[bytes, Entry] = {}
        for file in files:
            for pickle in _pickles(file):
                found = tokens_of(pickle)
                tokens.update(dict.fromkeys(token for token in found if len(token) < 200))
                spans = (found[start:end] for start, end in values_of(found) if end - start <= _LONGEST_VALUE)
                values.update(dict.fromkeys(b"".join(span) for span in spans))
            header = header_of(file)
            if header is not None:
                words.update(dict.fromkeys(_JSON.findall(header)))
            made = zip_of(file)
            for entry in made.entries if made else ():
                records.setdefault(entry.name.partition(b"/")[2], entry)
        self._tokens, self._values, self._words = list(tokens), list(values), list(words)
        self._records = list(records.values())
        self._by_code: dict[int, list[bytes]] = {}
        for token in self._tokens:
            self._by_code.setdefault(token[0], []).append(token)

    def __call__(self, data: bytes, max_size: int, seed: int) -> bytes:
        """At most ``max_size`` bytes."""
        self._random.seed(seed)
        if self.accepted and self._random.random() < 0.5:
            data = self._random.choice(self.accepted)
        new = self._changed(bytes(data), max_size)
        return new[:max_size] or b"\0"

    def learn(self, accepted: bytes) -> None:
        """To go on from it, while it is small: changes of changes grow."""
        if len(accepted) > LARGEST_LEARNT:
            return
        if len(self.accepted) < MOST_LEARNT:
            self.accepted.append(accepted)
        else:
            self.accepted[self._random.randrange(MOST_LEARNT)] = accepted

    def _changed(self, data: bytes, room: int) -> bytes:
        random = self._random
        chance = random.random()
        if chance < 0.08:
            return self._mutate(data, room)
        if chance < 0.16:
            return damaged(data, random)
        made = zip_of(data)
        if made is not None and made.entries:
            self._change_zip(made, room)
            return made.build()
        header = header_of(data)
        if header is not None:
            return self._with_changed_header(data, header, room)
        if data.startswith(LEGACY):
            start, end = _span_of_object(data)
            return data[:start] + self._changed_pickle(data[start:end], room) + data[end:]
        return self._mutate(data, room) if chance < 0.6 else damaged(data, random)

    def _change_zip(self, made: Zip, room: int) -> None:
        random = self._random
        pickle = pickle_of(made)
        if pickle is not None and random.random() < 0.85:
            pickle.data, pickle.crc32 = self._changed_pickle(pickle.data, room), None
            return
        entries = made.entries
        at = random.randrange(len(entries))
        entry = entries[at]
        match random.randrange(7):
            case 0:
                del entries[at]
            case 1:
                foreign = random.choice(self._records)
                root = entry.name.partition(b"/")[0]
                renamed = root + b"/" + foreign.name.partition(b"/")[2]
                entries.insert(at, Entry(renamed, foreign.data, flags=foreign.flags, method=foreign.method))
            case 2:
                entries[at] = random.choice(entries)
                entries[random.randrange(len(entries))] = entry
            case 3:
                entry.name = self._mutate(entry.name, 100)
            case 4:
                where = random.choice((entry.local, entry.central))
                field = random.choice(("flags", "method", "crc32", "packed", "size"))
                where[field] = random.choice(_FLAGS if field in {"flags", "method"} else NUMBERS[:10])
            case 5:
                entry.extra = self._mutate(entry.extra, 40)
            case _:
                entry.data, entry.crc32 = self._mutate(entry.data, len(entry.data) + 16), None

    def _with_changed_header(self, data: bytes, header: bytes, room: int) -> bytes:
        random = self._random
        if random.random() < 0.1:
            return with_header(data, header, self._mutate(header, room))
        found: list[bytes] = _JSON.findall(header)
        for _ in range(random.choice((1, 1, 2, 4))):
            self._change_tokens(found, self._words)
        return with_header(data, header, b"".join(found))

    def _changed_pickle(self, pickle: bytes, room: int) -> bytes:
        random = self._random
        chance = random.random()
        if chance < 0.08:
            return self._mutate(pickle, room)
        if chance < 0.16:
            return damaged(pickle, random)
        tokens = tokens_of(pickle)
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            if random.random() < 0.5:
                self._change_value(tokens)
            else:
                self._change_tokens(tokens, self._tokens)
        return b"".join(tokens)

    def _change_tokens(self, tokens: Tokens, foreign: Sequence[bytes]) -> None:
        if not tokens:
            return
        random = self._random
        at, other = random.randrange(len(tokens)), random.randrange(len(tokens))
        match random.randrange(6):
            case 0:
                del tokens[at]
            case 1:
                tokens.insert(at, tokens[other])
            case 2:
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case 3:
                tokens.insert(at, random.choice(foreign))
            case 4:
                tokens[at] = random.choice(foreign)
            case _:
                like = self._by_code.get(tokens[at][0], ()) if foreign is self._tokens else ()
                tokens[at] = random.choice(like) if like else self._number(tokens[at])

    def _change_value(self, tokens: Tokens) -> None:
        """Put a value into the place of another, or beside it."""
        random = self._random
        values = values_of(tokens)
        if not values:
            return
        start, end = random.choice(values)
        if random.random() < 0.5:
            new = [random.choice(self._values)]
        else:
            first, last = random.choice(values)
            new = tokens[first:last]
        match random.randrange(8):
            case 0:
                tokens[end:end] = new
            case 1:
                del tokens[start:end]
            case 2:
                tokens.insert(end, random.choice(_AFTER_A_VALUE))
            case 3:
                number = random.choice(NUMBERS) - random.choice((0, 0, 1 << 32))
                tokens[start:end] = [b"\x8a\x0a" + number.to_bytes(10, "little", signed=True)]
            case _:
                tokens[start:end] = new

    def _number(self, token: bytes) -> bytes:
        number = self._random.choice(NUMBERS)
        if token.isdigit():
            return b"%d" % number
        width = len(token) - 1
        return token[:1] + (number & ((1 << 8 * width) - 1)).to_bytes(width, "little")


def _span_of_object(legacy: bytes) -> tuple[int, int]:
    """Where the fourth pickle of a legacy file lies."""
    start = end = 0
    for _ in range(4):
        start = end
        for token in tokens_of(legacy[start:]):
            end += len(token)
            if token[0] == op.STOP:
                break
    return start, end


def _pickles(file: bytes) -> Iterable[bytes]:
    made = zip_of(file)
    pickle = made and pickle_of(made)
    if pickle:
        yield pickle.data
    elif file.startswith(LEGACY):
        start, end = _span_of_object(file)
        yield file[start:end]
