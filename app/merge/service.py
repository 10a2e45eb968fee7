"""The API's entry to merges: checkpoints and a recipe become a file, which is written block by block.

The file is the first checkpoint's state_dict, as torch.save would write it, with other bytes for each tensor. Integers
and truth values are those of the last checkpoint; a tensor whose blob all checkpoints share is that blob.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..concurrency.cancellation import check
from ..deliver.service import Deliver
from ..errors import SelectionError
from ..select.query import StateDictQuery
from ..values.checkpoint import Checkpoint
from ..values.conversion import Conversion
from ..values.digest import Digest
from ..values.span import Span
from ..values.virtual_file import VirtualFile
from .recipe import Recipe
from .sources import Source, SourceTensor, check_fit, open_source
from .write import Copied, Made, Merged, write

HELD = 96 * 1024 * 1024
"""Bytes that a merge holds at a time: a block of a source, its elements in order, and those of the result, twice."""


MOST_TENSORS = 400_000
"""Tensors of all sources of a merge."""

_PER_TENSOR = 700
"""Bytes of memory that a tensor of a source takes, until the merge is made."""


def held_by(checkpoints: Iterable[Checkpoint]) -> int:
    """Return the bytes of memory that a merge of ``checkpoints`` takes."""
    keys = sum(component.keys for checkpoint in checkpoints for component in checkpoint.components)
    return HELD + _PER_TENSOR * min(keys, MOST_TENSORS)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A merge that is about to be made, as a file of ``size`` bytes. ``component`` is the name of the state_dict."""

    size: int
    component: str | None
    _file: VirtualFile
    _sources: Sequence[Source]
    _made: Mapping[Conversion, Made]

    def chunks(self) -> Iterator[memoryview]:
        """Yield the file's bytes, computed in a child process. Raises the errors of a BlobReader and of a Child."""
        return write(self._file, self._sources, self._made)


def prepare(
    deliver: Deliver, checkpoints: Sequence[Checkpoint], component: str | None, recipe: Recipe, *, is_slerp: bool
) -> Prepared:
    """Plan the merge of state_dicts: the one called ``component`` of each checkpoint, or its default one. Blocks.

    Raises SelectionError, and Unmergeable if they do not fit together.
    """
    sources: list[Source] = []
    for checkpoint in checkpoints:
        sources.append(open_source(deliver, checkpoint, component))
        if sum(len(source.tensors) for source in sources) > MOST_TENSORS:
            raise SelectionError(
                f"the checkpoints have more than {MOST_TENSORS:,} tensors together: merge fewer at a time",
                code="too-much-work",
            )
    check_fit(sources)
    download = deliver.state_dict(checkpoints[0], StateDictQuery(component), apart=True)
    made = dict(_made(sources, recipe, is_slerp=is_slerp))
    for piece in download.plan.storages:
        check()
        if isinstance(piece.source, Conversion) and piece.source not in made:
            as_saved = replace(piece.source, byteorder=download.stored.manifest.byteorder)
            made[piece.source] = Copied(0, as_saved)
    return Prepared(download.size, sources[0].component, download.plan.file, sources, made)


def _made(sources: Sequence[Source], recipe: Recipe, *, is_slerp: bool) -> Iterator[tuple[Conversion, Made]]:
    """Yield what each tensor of the result is made of, by the conversion that stands for it in the plan."""
    blobs = [source.blobs() for source in sources] if recipe.is_mean else []
    for key, tensor in sources[0].tensors.items():
        check()
        if tensor.elements is None:
            continue
        if tensor.elements.flips:
            raise SelectionError(
                f"{key[:200]!r} is a conjugate or negative view: save it resolved, to merge it", code="not-mergeable"
            )
        place = replace(tensor.elements, byteorder="little")
        each = [_elements(source.tensors[key]) for source in sources]
        if not tensor.is_merged:
            yield place, Copied(len(sources) - 1, each[-1])
        elif blobs and _is_shared(each, blobs):
            yield place, Copied(0, tensor.elements)
        else:
            yield place, Merged(each, recipe, is_slerp)


def _is_shared(each: Sequence[Conversion], blobs: Sequence[Mapping[Span, Digest]]) -> bool:
    """Tell whether a tensor is one blob, as it is, in all sources."""
    digests = {
        (known.get(elements.source) if elements.changes_nothing else None, elements.dtype)
        for elements, known in zip(each, blobs, strict=True)
    }
    return len(digests) == 1 and all(digest is not None for digest, _ in digests)


def _elements(tensor: SourceTensor) -> Conversion:
    assert tensor.elements is not None  # noqa: S101 - it has the shape of one that has elements
    return tensor.elements
