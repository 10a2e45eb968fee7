"""Comparison of two checkpoints, key by key, from digests.

A blob-sized storage that one tensor fills has a digest of the tensor's very bytes. So two tensors are compared without
reading them, with two exceptions: small storages, whose bytes are in the frame, and views of a part of a storage, which
are read if their digests cannot decide. Elements are compared in C order, little-endian: the file's format, strides and
byte order make no difference.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..concurrency.cancellation import check, expect
from ..deliver.stored_file import StoredFile
from ..select.components import choose_component, default_component
from ..values.checkpoint import Checkpoint
from ..values.conversion import Conversion
from ..values.difference import STATUSES, Difference, Differences
from ..values.digest import Digest
from ..values.manifest import Manifest, Tensor
from .reading import content_of, content_of_small, is_small, small_elements
from .views import digest_of_whole, elements_of, storage_of, why_unreadable

MOST_READ = 8 * 1024**3
"""Bytes of views that are read for one comparison. Further ones that digests cannot decide count as changed."""

TOO_MUCH = f"not compared: more than {MOST_READ // 1024**3} GiB of views would have to be read"

Content: TypeAlias = Digest | None
"""The digest of a tensor's elements; None if it has no elements in the file."""

Key: TypeAlias = tuple[int, str, int]
"""The number of a pair of components, a key, and how often that key came before."""

_OUTSIDE = -1


@dataclass(slots=True)
class Side:
    """One of the two checkpoints. ``contents`` are the contents known so far, ``notes`` the reasons why one is not."""

    checkpoint: Checkpoint
    stored: StoredFile
    contents: dict[Conversion, Content] = field(default_factory=dict)
    notes: dict[Conversion, str] = field(default_factory=dict)
    _elements: dict[int, Conversion | None] = field(default_factory=dict)  # by the ids of the manifest's tensors

    @property
    def manifest(self) -> Manifest:
        return self.stored.manifest

    def elements(self, tensor: Tensor) -> Conversion | None:
        if id(tensor) not in self._elements:
            self._elements[id(tensor)] = elements_of(self.manifest, tensor)
        return self._elements[id(tensor)]

    def known_content(self, tensor: Tensor) -> Content:
        """The content of a tensor, if it is known without reading or was read."""
        digest = digest_of_whole(self.manifest, tensor)
        if digest is not None:
            return digest
        elements = self.elements(tensor)
        return None if elements is None else self.contents.get(elements)

    def note(self, tensor: Tensor) -> str | None:
        elements = self.elements(tensor)
        return None if elements is None else self.notes.get(elements)

    def place(self, tensor: Tensor) -> object:
        """Return a key that two tensors share if they are the same view of the same storage, if that is known."""
        storage, elements = storage_of(self.manifest, tensor), self.elements(tensor)
        if storage is None or storage.digest is None or elements is None:
            return None
        return storage.digest, elements.source.start - storage.span.start, elements.dims, elements.byteorder


def pair_components(base: Manifest, other: Manifest, wanted: str | None) -> list[tuple[int, int]]:
    """Return the pairs of components that are compared, by name; _OUTSIDE stands for the tensors outside of all.

    The state_dicts that are left over on both sides are a pair, if there is one on each: ``model_state_dict`` of a
    training checkpoint and the only one of a safetensors file. Raises SelectionError for a ``wanted`` component that
    the base does not have.
    """
    names = {component.name: number for number, component in reversed(list(enumerate(other.components)))}
    if wanted is not None:
        chosen = choose_component(base, wanted)
        if chosen is None:
            return [(_OUTSIDE, _OUTSIDE)]
        named = names.get(base.components[chosen].name)
        partner = default_component(other.components) if named is None else named
        if partner is None:
            partner = choose_component(other, wanted)  # raises, and lists what there is
        return [(chosen, _OUTSIDE if partner is None else partner)]
    pairs = [
        (number, names.pop(component.name))
        for number, component in enumerate(base.components)
        if component.name in names
    ]
    lone = [_lone(base, {one for one, _ in pairs}), _lone(other, {two for _, two in pairs})]
    if lone[0] is not None and lone[1] is not None:
        pairs.append((lone[0], lone[1]))
    rest = ((_OUTSIDE, _OUTSIDE), *_unpaired(base, pairs, 0), *_unpaired(other, pairs, 1))
    return [*pairs, *rest]


_NOTHING = -2


def _unpaired(manifest: Manifest, pairs: Sequence[tuple[int, int]], side: int) -> Iterator[tuple[int, int]]:
    paired = {pair[side] for pair in pairs}
    for number in range(len(manifest.components)):
        if number not in paired:
            yield (number, _NOTHING) if side == 0 else (_NOTHING, number)


def _lone(manifest: Manifest, paired: set[int]) -> int | None:
    left = [
        number
        for number, component in enumerate(manifest.components)
        if number not in paired and component.kind == "state_dict"
    ]
    return left[0] if len(left) == 1 else None


def compare(base: Side, other: Side, component: str | None) -> Differences:
    """Compare the tensors of two checkpoints, of the base's ``component`` or all of them.

    Raises SelectionError, TakesLong if much has to be read and there is no time for that, and the errors of a
    BlobReader.
    """
    pairs = pair_components(base.manifest, other.manifest, component)
    before = _keyed(base.manifest, [one for one, _ in pairs])
    after = _keyed(other.manifest, [two for _, two in pairs])
    shared = [(tensor, after[key]) for key, tensor in before.items() if key in after]
    removed = [tensor for key, tensor in before.items() if key not in after]
    added = [tensor for key, tensor in after.items() if key not in before]
    _read(base, other, _undecided(base, other, shared), _candidates(removed, added))
    verdicts = {id(one): _verdict(base, other, one, two) for one, two in shared}
    moves = _moves(base, other, removed, added)
    gone = {id(move.base) for move in moves.values()}
    items = []
    for key, tensor in before.items():
        if key in after:
            items.append(verdicts[id(tensor)])
        elif id(tensor) not in gone:
            items.append(Difference("removed", tensor, None))
    items += (moves.get(id(tensor), Difference("added", None, tensor)) for tensor in added)
    counts = Counter(item.status for item in items)
    return Differences(tuple(items), {status: counts[status] for status in STATUSES})


def _keyed(manifest: Manifest, components: Sequence[int]) -> dict[Key, Tensor]:
    pairs = {component: pair for pair, component in enumerate(components)}
    times: Counter[tuple[int, str]] = Counter()
    keyed = {}
    for number, tensor in enumerate(manifest.tensors):
        if not number % 10_000:
            check()
        pair = pairs.get(_OUTSIDE if tensor.component is None else tensor.component)
        if pair is not None:
            key = tensor.key
            keyed[pair, key, times[pair, key]] = tensor
            times[pair, key] += 1
    return keyed


def _is_alike(one: Tensor, two: Tensor) -> bool:
    return (one.dtype, one.shape, one.storage is None) == (two.dtype, two.shape, two.storage is None)


def _undecided(base: Side, other: Side, shared: Iterable[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the tensors whose elements have to be read to compare the pairs."""
    ones, twos = [], []
    for one, two in shared:
        if not _is_alike(one, two):
            continue
        contents = base.known_content(one), other.known_content(two)
        if None in contents and not _is_same_place(base, other, one, two) and base.elements(one) is not None:
            ones += [one] if contents[0] is None else []
            twos += [two] if contents[1] is None else []
    return ones, twos


def _is_same_place(base: Side, other: Side, one: Tensor, two: Tensor) -> bool:
    place = base.place(one)
    return place is not None and place == other.place(two)


def _candidates(removed: Sequence[Tensor], added: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the removed and added tensors that have a counterpart of the same form."""
    there = {(tensor.dtype, tensor.shape) for tensor in removed} & {(tensor.dtype, tensor.shape) for tensor in added}
    return (
        [tensor for tensor in removed if (tensor.dtype, tensor.shape) in there],
        [tensor for tensor in added if (tensor.dtype, tensor.shape) in there],
    )


def _read(base: Side, other: Side, *wanted: tuple[list[Tensor], list[Tensor]]) -> None:
    """Find out the contents of the ``wanted`` tensors, of the base and of the other. The smallest come first."""
    large = [(base, elements) for elements in _read_small(base, [one for ones, _ in wanted for one in ones])]
    large += [(other, elements) for elements in _read_small(other, [two for _, twos in wanted for two in twos])]
    expect(sum(elements.size for _, elements in large))
    left = MOST_READ
    for side, elements in sorted(large, key=lambda each: each[1].size):
        left -= elements.size
        if left < 0:
            side.notes[elements] = TOO_MUCH
        else:
            side.contents[elements] = content_of(side.stored, elements)


def _read_small(side: Side, tensors: Iterable[Tensor]) -> set[Conversion]:
    """Find out the contents of small tensors, and return the elements of the others that can be read."""
    small, large = set[Conversion](), set[Conversion]()
    for tensor in tensors:
        elements = side.elements(tensor)
        if elements is None or side.known_content(tensor) is not None:
            continue
        reason = why_unreadable(side.checkpoint, side.manifest, tensor, elements)
        if reason is not None:
            side.notes[elements] = f"not compared: {reason}"
        elif is_small(side.stored, elements):
            small.add(elements)
        else:
            large.add(elements)
    for elements, data in small_elements(side.stored, small).items():
        side.contents[elements] = content_of_small(data)
    return large


def _verdict(base: Side, other: Side, one: Tensor, two: Tensor) -> Difference:
    if not _is_alike(one, two):
        return Difference("changed", one, two)
    contents = base.known_content(one), other.known_content(two)
    if None not in contents:
        return Difference("same" if contents[0] == contents[1] else "changed", one, two)
    if _is_same_place(base, other, one, two) or base.elements(one) is None:
        return Difference("same", one, two)
    return Difference("changed", one, two, base.note(one) or other.note(two))


def _moves(base: Side, other: Side, removed: Sequence[Tensor], added: Sequence[Tensor]) -> Mapping[int, Difference]:
    """Match added keys with removed ones of the same bytes, dtype and shape, each once. By the added tensors' ids."""
    origins: defaultdict[object, deque[Tensor]] = defaultdict(deque)
    for tensor in removed:
        if (content := base.known_content(tensor)) is not None:
            origins[content, tensor.dtype, tensor.shape].append(tensor)
    moves = {}
    for tensor in added:
        content = other.known_content(tensor)
        candidates = None if content is None else origins.get((content, tensor.dtype, tensor.shape))
        if candidates:
            moves[id(tensor)] = Difference("moved", candidates.popleft(), tensor)
    return moves
