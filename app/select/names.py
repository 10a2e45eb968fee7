"""Renaming of keys: strip_prefix, rename, add_prefix."""

from ..errors import SelectionError
from .patterns import INSTRUCTIONS_PER_STEP, REGEX, Rewrite, check_program_size
from .query import StateDictQuery

MAX_RENAMES = 1_000


class Names:
    """A query's renaming, compiled. Raises SelectionError ``bad-pattern`` or ``bad-rename``."""

    def __init__(self, query: StateDictQuery) -> None:
        if len(query.rename) > MAX_RENAMES:
            raise SelectionError(
                f"{len(query.rename):,} renames; at most {MAX_RENAMES:,} are allowed", code="bad-rename"
            )
        self._strip = tuple(filter(None, query.strip_prefix))
        self._add = query.add_prefix or ""
        self._rules: list[tuple[str, str | Rewrite]] = []
        size = 0
        for old, new in query.rename:
            if old.startswith(REGEX):
                rewrite = Rewrite(old, new)
                size += rewrite.program_size
                check_program_size(old, size)
                self._rules.append((old, rewrite))
            else:
                self._rules.append((old, new))
        self._program_size = size

    def cost(self, keys: int, characters: int) -> int:
        """Steps that ``final`` takes for so many keys of so many characters; longer new names take more steps."""
        longest = len(self._add) + max((len(rule) for _, rule in self._rules if isinstance(rule, str)), default=0)
        each = 4 + len(self._strip) // 4 + len(self._rules) // 2 + longest // 8
        return keys * each + characters * self._program_size // INSTRUCTIONS_PER_STEP

    def strip(self, key: str) -> str:
        """Remove the prefixes in turn, each if the key begins with it by then."""
        for prefix in self._strip:
            key = key.removeprefix(prefix)
        return key

    def rename(self, key: str) -> str:
        """Return a stripped key's final name; the first rename that matches wins."""
        for old, rule in self._rules:
            if isinstance(rule, Rewrite):
                new = rule.apply(key)
            else:
                new = rule + key.removeprefix(old) if key.startswith(old) else None
            if new is not None:
                return self._add + new
        return self._add + key

    def final(self, key: str) -> str:
        return self.rename(self.strip(key))
