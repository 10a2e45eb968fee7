"""What ``load_state_dict(strict=False)`` would do with a selection, known before a byte of it moves."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..values.manifest import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TargetTensor:
    """A tensor of the model to be loaded into; ``dtype`` is torch's name without ``torch.``."""

    shape: Shape
    dtype: str


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A key whose shape here, ``have``, is not the target's, ``want``. It does not travel."""

    key: str
    have: Shape
    want: Shape


@dataclass(frozen=True, slots=True)
class Report:
    """``missing_keys`` are in the target but not here, in the target's order; all others are in the selection's.

    ``cast_keys`` match under another dtype: loading casts them to the target's. ``nbytes`` counts what the matched
    tensors hold, the elements that several keys share once.
    """

    matched_keys: tuple[str, ...]
    missing_keys: tuple[str, ...]
    unexpected_keys: tuple[str, ...]
    mismatched_keys: tuple[Mismatch, ...]
    cast_keys: tuple[str, ...]
    nbytes: int


def match(selection: Iterable[tuple[str, Tensor]], target: Mapping[str, TargetTensor]) -> Report:
    """Compare the selected tensors, under their new names, with ``target``. Linear in both. A tensor without bytes
    counts as one that is not here.
    """
    matched: list[str] = []
    unexpected: list[str] = []
    mismatched: list[Mismatch] = []
    cast: list[str] = []
    seen: set[str] = set()
    sizes: dict[tuple[object, ...], int] = {}
    for key, tensor in selection:
        if tensor.shape is None or tensor.storage is None:
            continue
        seen.add(key)
        want = target.get(key)
        if want is None:
            unexpected.append(key)
        elif not _fits(tensor.shape, want.shape):
            mismatched.append(Mismatch(key, tensor.shape, want.shape))
        else:
            matched.append(key)
            view = (tensor.storage, tensor.offset, tensor.shape, tensor.stride, tensor.dtype.name)
            sizes[view] = tensor.nbytes
            if tensor.dtype.name != want.dtype:
                cast.append(key)
    missing = tuple(key for key in target if key not in seen)
    return Report(tuple(matched), missing, tuple(unexpected), tuple(mismatched), tuple(cast), sum(sizes.values()))


def _fits(have: Shape, want: Shape) -> bool:
    """As torch says; it also loads the one-element vector of torch 0.3 into a scalar."""
    return have == want or (want == () and have == (1,))
