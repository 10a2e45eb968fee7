"""Statistics and differences as JSON."""

from collections.abc import Mapping
from functools import lru_cache

from pydantic import BaseModel, Field

from ...inside.service import DiffPage, StatsPage
from ...inside.stats import TensorResult
from ...values.difference import Difference, Status
from ...values.manifest import Manifest, Tensor
from ...values.tensor_numbers import Distance, Histogram
from .views import FileText, finite


class HistogramView(BaseModel):
    """Counts of the finite elements in 32 bins of equal width from `low` to `high`. The last bin includes `high`."""

    low: float | None
    high: float | None
    counts: list[int]

    @classmethod
    def of(cls, histogram: Histogram) -> "HistogramView":
        return cls(low=finite(histogram.low), high=finite(histogram.high), counts=list(histogram.counts))


class StatsView(BaseModel):
    """A tensor's numbers, as torch computes them in float64. All but `nan` and `inf` are of its finite elements."""

    component: FileText | None = Field(description="null for a tensor outside every component")
    key: FileText
    dtype: str
    shape: list[int] | None
    count: int | None = Field(description="number of elements")
    min: float | None = Field(description="null without a finite element, and for complex numbers")
    max: float | None
    mean: float | None
    std: float | None = Field(description="with n - 1, as torch.std; null for fewer than two finite elements")
    l2: float | None
    zeros: int | None
    nan: int | None
    inf: int | None = Field(description="infinite elements of either sign")
    histogram: HistogramView | None
    skipped: str | None = Field(description="the reason why there are no numbers")

    @classmethod
    def of(cls, manifest: Manifest, result: TensorResult) -> "StatsView":
        tensor, stats = result.tensor, result.stats
        return cls(
            component=_component(manifest, tensor),
            key=tensor.key,
            dtype=tensor.dtype.name,
            shape=None if tensor.shape is None else list(tensor.shape),
            count=None if stats is None else stats.count,
            min=None if stats is None else stats.min,
            max=None if stats is None else stats.max,
            mean=None if stats is None else stats.mean,
            std=None if stats is None else stats.std,
            l2=None if stats is None else stats.l2,
            zeros=None if stats is None else stats.zeros,
            nan=None if stats is None else stats.nan,
            inf=None if stats is None else stats.inf,
            histogram=None if stats is None or stats.histogram is None else HistogramView.of(stats.histogram),
            skipped=result.skipped,
        )


class StatsList(BaseModel):
    items: list[StatsView]
    next: str | None = Field(description="the cursor of the next page")

    @classmethod
    def of(cls, page: StatsPage, cursor: str | None) -> "StatsList":
        return cls(items=[StatsView.of(page.manifest, each) for each in page.items], next=cursor)


class FormView(BaseModel):
    """The form of a tensor on one side."""

    dtype: str
    shape: list[int] | None
    bytes: int


@lru_cache(maxsize=1_000)
def _form(dtype: str, shape: tuple[int, ...] | None, nbytes: int) -> FormView:
    """Return the form of a tensor: thousands of tensors have the same."""
    return FormView(dtype=dtype, shape=None if shape is None else list(shape), bytes=nbytes)


def _form_of(tensor: Tensor | None) -> FormView | None:
    return None if tensor is None else _form(tensor.dtype.name, tensor.shape, tensor.nbytes)


class DifferenceView(BaseModel):
    """A key, and what became of its tensor from the base, `C`, to the other checkpoint, `{other}`."""

    component: FileText | None = Field(description="in the checkpoint that has the key; null outside every component")
    key: FileText
    status: Status = Field(
        description="`moved`: the other has the base's bytes under this key, and no longer under `moved_from`"
    )
    moved_from: FileText | None
    base: FormView | None = Field(description="null for an added tensor")
    other: FormView | None = Field(description="null for a removed tensor")
    max_abs: float | None = Field(description="largest absolute difference; this and the next four with `numeric`")
    l2: float | None = Field(description="norm of the difference")
    relative_l2: float | None = Field(description="`l2` over the norm of the base's tensor; null if that is 0")
    cosine: float | None = Field(description="null if either norm is 0")
    nonfinite: int | None = Field(description="places left out, where either element is not finite")
    note: str | None = Field(description="the reason why bytes were not compared; the tensor then counts as changed")

    @classmethod
    def of(cls, page: DiffPage, item: Difference, distance: Distance | None) -> "DifferenceView":
        manifest, tensor = (page.base, item.base) if item.other is None else (page.other, item.other)
        assert tensor is not None  # noqa: S101 - a difference has a tensor on one side
        moved = item.base if item.status == "moved" else None
        return cls(
            component=_component(manifest, tensor),
            key=tensor.key,
            status=item.status,
            moved_from=None if moved is None else _path(page.base, moved, _component(manifest, tensor)),
            base=_form_of(item.base),
            other=_form_of(item.other),
            max_abs=None if distance is None else distance.max_abs,
            l2=None if distance is None else distance.l2,
            relative_l2=None if distance is None else distance.relative_l2,
            cosine=None if distance is None else distance.cosine,
            nonfinite=None if distance is None else distance.nonfinite,
            note=item.note,
        )


class DiffSummary(BaseModel):
    """The number of keys by status, on all pages together."""

    same: int
    changed: int
    added: int
    removed: int
    moved: int

    @classmethod
    def of(cls, counts: Mapping[Status, int]) -> "DiffSummary":
        return cls(
            same=counts["same"],
            changed=counts["changed"],
            added=counts["added"],
            removed=counts["removed"],
            moved=counts["moved"],
        )


class DiffList(BaseModel):
    base: str = Field(examples=["vision/resnet50@11"])
    other: str = Field(examples=["vision/resnet50@12"])
    items: list[DifferenceView]
    next: str | None = Field(description="the cursor of the next page")
    summary: DiffSummary

    @classmethod
    def of(cls, page: DiffPage, base: str, other: str, cursor: str | None) -> "DiffList":
        return cls(
            base=base,
            other=other,
            items=[DifferenceView.of(page, item, distance) for item, distance in page.items],
            next=cursor,
            summary=DiffSummary.of(page.all.counts),
        )


def _component(manifest: Manifest, tensor: Tensor) -> str | None:
    return None if tensor.component is None else manifest.components[tensor.component].name


def _path(manifest: Manifest, tensor: Tensor, seen_from: str | None) -> str:
    """Return the key of a tensor, with the name of its component if that is another than ``seen_from``."""
    component = _component(manifest, tensor)
    return tensor.key if component == seen_from or not component else f"{component}.{tensor.key}"
