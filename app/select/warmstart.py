"""Report of what ``load_state_dict(strict=False)`` would do with a selection, before any byte is sent."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from ..values.dtype import DTYPES, DType
from ..values.manifest import Tensor
from .query import CAST_TO

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TargetTensor:
    """A tensor of the model to be loaded into; ``dtype`` is torch's name without ``torch.``."""

    shape: Shape
    dtype: str


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A key whose shape here, ``have``, is not the target's, ``want``."""

    key: str
    have: Shape
    want: Shape


@dataclass(frozen=True, slots=True)
class Fitted:
    """A tensor that is sent as less than it is: its first ``shape`` indices, or cast to ``dtype``, or both."""

    key: str
    shape: Shape | None = None
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Result of ``match``. ``missing_keys`` are only in the target, in its order; others are in the selection's order.

    ``resized_keys`` have another shape, and the overlapping corner is sent; ``mismatched_keys`` are not sent.
    ``cast_keys`` match under another dtype: loading casts them to the target's. ``nbytes`` counts the bytes of the
    matched tensors and corners as they are stored, elements that several keys share once.
    """

    matched_keys: tuple[str, ...]
    missing_keys: tuple[str, ...]
    unexpected_keys: tuple[str, ...]
    mismatched_keys: tuple[Mismatch, ...]
    resized_keys: tuple[Mismatch, ...]
    cast_keys: tuple[str, ...]
    nbytes: int
    fitted: tuple[Fitted, ...] = ()

    @property
    def sent_keys(self) -> tuple[str, ...]:
        return (*self.matched_keys, *(each.key for each in self.resized_keys))


def match(
    selection: Iterable[tuple[str, Tensor]],
    target: Mapping[str, TargetTensor],
    *,
    resizes: bool = False,
    casts: bool = False,
) -> Report:
    """Compare the selected tensors, under their new names, with ``target``. Linear in both. A tensor without bytes
    counts as absent.

    ``resizes``: of a tensor of another shape but as many dimensions, the corner that both have is wanted. ``casts``: a
    tensor is wanted in the target's dtype if the server can cast to it, and has fewer bytes then.
    """
    matched: list[str] = []
    unexpected: list[str] = []
    mismatched: list[Mismatch] = []
    resized: list[Mismatch] = []
    cast: list[str] = []
    fitted: list[Fitted] = []
    seen: set[str] = set()
    sizes: dict[tuple[object, ...], int] = {}
    for key, tensor in selection:
        if tensor.shape is None or tensor.storage is None:
            continue
        seen.add(key)
        want = target.get(key)
        if want is None:
            unexpected.append(key)
            continue
        fits = _fits(tensor.shape, want.shape)
        corner = None if fits or not resizes else _corner(tensor, want.shape)
        if not fits and corner is None:
            mismatched.append(Mismatch(key, tensor.shape, want.shape))
            continue
        if corner is None:
            matched.append(key)
            if tensor.dtype.name != want.dtype:
                cast.append(key)
        else:
            resized.append(Mismatch(key, tensor.shape, want.shape))
        dtype = want.dtype if casts and _saves_bytes(tensor.dtype, want.dtype) else None
        if corner is not None or dtype is not None:
            fitted.append(Fitted(key, corner, dtype))
        shape = corner or tensor.shape
        view = (tensor.storage, tensor.offset, shape, tensor.stride, tensor.dtype.name)
        sizes[view] = prod(shape) * tensor.dtype.itemsize
    missing = tuple(key for key in target if key not in seen)
    return Report(
        tuple(matched),
        missing,
        tuple(unexpected),
        tuple(mismatched),
        tuple(resized),
        tuple(cast),
        sum(sizes.values()),
        tuple(fitted),
    )


def _corner(tensor: Tensor, want: Shape) -> Shape | None:
    """Return the shape of the corner that a dense tensor and the target's have in common; None without elements."""
    have = tensor.shape or ()
    if len(have) != len(want) or tensor.dtype.name.startswith("q"):
        return None
    corner = tuple(map(min, have, want))
    return None if 0 in corner else corner


def _saves_bytes(have: DType, want: str) -> bool:
    """Tell whether the server can cast to ``want``, and sends fewer bytes then."""
    return have.is_floating and want in CAST_TO and DTYPES[want].itemsize < have.itemsize


def _fits(have: Shape, want: Shape) -> bool:
    """Tell whether torch loads the shape; a scalar also takes the one-element vector of torch 0.3."""
    return have == want or (want == () and have == (1,))
