"""The tensors of the checkpoints that are merged: where their elements lie, and whether they fit together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..concurrency.cancellation import check
from ..deliver.service import Deliver
from ..deliver.stored_file import StoredFile
from ..errors import SelectionError, Unmergeable
from ..formats.safetensors.header import METADATA, NAMES
from ..select.components import choose_component
from ..select.query import StateDictQuery
from ..values.checkpoint import Checkpoint
from ..values.conversion import Conversion
from ..values.digest import Digest
from ..values.dtype import DTYPES, DType
from ..values.json_text import read_json
from ..values.manifest import Manifest
from ..values.span import Span

_DTYPES = {name: DTYPES[torch] for torch, name in NAMES.items()}
_FLOATS = frozenset({"float64", "float32", "float16", "bfloat16", "complex64"})
_WITH_SCALES = "numbers whose scales are other tensors have no average: convert the weights to float16 or more first"

LISTED = 5
"""Mismatches that the text of an error lists."""

MOST_LISTED = 100
"""Mismatches that an error lists as data."""


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """A tensor: its dtype, its shape, and its elements in C order, little-endian; None if it has none."""

    dtype: DType
    shape: tuple[int, ...]
    elements: Conversion | None

    @property
    def is_merged(self) -> bool:
        """Tell whether its elements are computed with. Integers and truth values are not."""
        return self.dtype.name in _FLOATS

    @property
    def form(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Source:
    """A state_dict to merge: its tensors by key."""

    checkpoint: Checkpoint
    component: str | None
    stored: StoredFile
    tensors: Mapping[str, SourceTensor]

    @property
    def name(self) -> str:
        return f"{self.checkpoint.model}@{self.checkpoint.version}"

    def blobs(self) -> Mapping[Span, Digest]:
        """Return the digests of the blobs by their places in the file."""
        return {each.span: each.digest for each in self.stored.manifest.storages if each.digest is not None}


def open_source(deliver: Deliver, checkpoint: Checkpoint, component: str | None) -> Source:
    """Find the tensors of a state_dict. Raises SelectionError if it is none, or if a tensor cannot be merged."""
    name = f"{checkpoint.model}@{checkpoint.version}"
    try:
        chosen = _state_dict(deliver.manifest(checkpoint), component)
        download = deliver.state_dict(checkpoint, StateDictQuery(component, format="safetensors"))
    except SelectionError as error:
        raise SelectionError(f"{name}: {error.detail}", code=error.code, near=error.near) from None
    sources = {storage.span.start: storage.source for storage in download.plan.storages if storage.span.length}
    tensors = dict(_tensors(name, download.plan.file.literals, sources))
    return Source(checkpoint, chosen, download.stored, tensors)


def _state_dict(manifest: Manifest, component: str | None) -> str:
    """Return the name of the state_dict that is meant."""
    number = choose_component(manifest, component)
    if number is None or manifest.components[number].kind != "state_dict":
        raise SelectionError("only state_dicts can be merged, and this component is not one", code="not-a-state-dict")
    return manifest.components[number].name


def _tensors(
    checkpoint: str, literals: bytearray, sources: Mapping[int, Span | Conversion]
) -> Iterator[tuple[str, SourceTensor]]:
    """Read the header of the safetensors file that the tensors are planned as."""
    length = int.from_bytes(literals[:8], "little")
    for key, field in read_json(bytes(literals[8 : 8 + length])).items():
        if key == METADATA:
            continue
        check()
        dtype, (start, end) = _DTYPES[field["dtype"]], field["data_offsets"]
        if dtype.name.startswith(("float8", "float4")):
            raise SelectionError(
                f"{checkpoint} cannot be merged: {key[:200]!r} is of dtype {dtype.name}, and {_WITH_SCALES}",
                code="not-mergeable",
                near=(key,),
            )
        elements = None if start == end else _elements(sources[8 + length + start], dtype)
        yield key, SourceTensor(dtype, tuple(field["shape"]), elements)


def _elements(source: Span | Conversion, dtype: DType) -> Conversion:
    if isinstance(source, Conversion):
        return source
    return Conversion(source, dtype, dtype, ((source.length // dtype.itemsize, 1),))


def check_fit(sources: Sequence[Source]) -> None:
    """Raise Unmergeable unless all sources have the keys and shapes of the first one, and tie what it ties."""
    first = sources[0]
    for other in sources[1:]:
        mismatched = []
        for key, (want, have) in _pairs(first, other):
            check()
            if want is None or have is None or not _is_alike(want, have):
                mismatched.append(
                    {
                        "checkpoint": other.name,
                        "key": key,
                        "have": None if have is None else have.form,
                        "want": None if want is None else want.form,
                    }
                )
        if mismatched:
            raise _unlike(first, other, mismatched)
        _check_ties(first, other)


def _pairs(first: Source, other: Source) -> Iterator[tuple[str, tuple[SourceTensor | None, SourceTensor | None]]]:
    for key in dict.fromkeys([*first.tensors, *other.tensors]):
        yield key, (first.tensors.get(key), other.tensors.get(key))


def _is_alike(want: SourceTensor, have: SourceTensor) -> bool:
    if want.shape != have.shape:
        return False
    if want.is_merged and have.is_merged:
        return want.dtype.name.startswith("complex") == have.dtype.name.startswith("complex")
    return want.dtype == have.dtype


def _unlike(first: Source, other: Source, mismatched: Sequence[Mapping[str, str | None]]) -> Unmergeable:
    listed = "; ".join(
        f"{each['key']}: {each['have'] or 'missing'}, not {each['want'] or 'there'}"[:300]
        for each in mismatched[:LISTED]
    )
    rest = f"; and {len(mismatched) - LISTED:,} more" if len(mismatched) > LISTED else ""
    return Unmergeable(
        f"{other.name} does not fit {first.name} in {len(mismatched):,} keys: {listed}{rest}. Merge state_dicts with "
        "the same keys and shapes; component chooses another one",
        mismatched=mismatched[:MOST_LISTED],
    )


def _check_ties(first: Source, other: Source) -> None:
    """Raise Unmergeable for tensors that are one in the first source, and may differ in the other."""
    tied: dict[Conversion, str] = {}
    blobs = None
    for key, tensor in first.tensors.items():
        if tensor.elements is None:
            continue
        leader = tied.setdefault(tensor.elements, key)
        one, two = other.tensors[leader].elements, other.tensors[key].elements
        if leader == key or one == two:
            continue
        blobs = other.blobs() if blobs is None else blobs
        if one is None or two is None or (blob := blobs.get(one.source)) is None or blob != blobs.get(two.source):
            raise Unmergeable(
                f"{leader[:200]!r} and {key[:200]!r} are one tensor in {first.name}, but two in {other.name}: name a "
                "checkpoint where they are two first, or tie them in all",
                mismatched=[{"checkpoint": other.name, "key": key, "have": "a tensor", "want": f"tied to {leader}"}],
            )
