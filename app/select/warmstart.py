"""Report of what ``load_state_dict(strict=False)`` would do with a selection, before any byte is sent."""

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
    """A key whose shape here, ``have``, is not the target's, ``want``. Its tensor is not sent."""

    key: str
    have: Shape
    want: Shape


@dataclass(frozen=True, slots=True)
class Report:
    """Result of ``match``. ``missing_keys`` are only in the target, in its order; others are in the selection's order.

    ``cast_keys`` match under another dtype: loading casts them to the target's. ``nbytes`` counts the bytes of the
    matched tensors, elements that several keys share once.
    """

    matched_keys: tuple[str, ...]
    missing_keys: tuple[str, ...]
    unexpected_keys: tuple[str, ...]
    mismatched_keys: tuple[Mismatch, ...]
    cast_keys: tuple[str, ...]
    nbytes: int


def match(selection: Iterable[tuple[str, Tensor]], target: Mapping[str, TargetTensor]) -> Report:
    """Compare the selected tensors, under their new names, with ``target``. Linear in both. A tensor without bytes
    counts as absent.
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
    """Tell whether torch loads the shape; a scalar also takes the one-element vector of torch 0.3."""
    return have == want or (want == () and have == (1,))
