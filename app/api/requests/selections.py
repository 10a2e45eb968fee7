"""The state_dict query as parameters of a URL and as fields of a JSON body."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal, cast

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from ...deliver.download import Download
from ...deliver.service import Deliver
from ...errors import InvalidRequest
from ...select.query import StateDictQuery, parse_rename
from ...values.checkpoint import Checkpoint

MAX_PATTERNS = 500_000
"""Most patterns in one list: each key that a torch file may have can be named."""

MAX_PREFIXES = 100
"""Most prefixes of one key, as nested wrappers add them."""


def _prefixes(given: str | list[str] | None) -> tuple[str, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)


class SelectionBody(BaseModel):
    """A selection in a JSON body; `rename` is a list of pairs."""

    model_config = ConfigDict(extra="forbid")

    component: str | None = None
    strip_prefix: str | Annotated[list[str], Field(max_length=MAX_PREFIXES)] | None = None
    include: list[str] = Field(default=[], max_length=MAX_PATTERNS)
    exclude: list[str] = Field(default=[], max_length=MAX_PATTERNS)
    rename: list[tuple[str, str]] = Field(default=[], max_length=MAX_PATTERNS)
    add_prefix: str | None = None
    device: str | None = None
    dtype: str | None = None
    dtype_exclude: list[str] = Field(default=[], max_length=MAX_PATTERNS)
    format: str = "pt"

    @property
    def query(self) -> StateDictQuery:
        """The selection as a query. Raises SelectionError for an unknown device, dtype or format."""
        return StateDictQuery(
            component=self.component,
            strip_prefix=_prefixes(self.strip_prefix),
            include=tuple(self.include),
            exclude=tuple(self.exclude),
            rename=tuple(self.rename),
            add_prefix=self.add_prefix,
            device=self.device,
            dtype=self.dtype,
            dtype_exclude=tuple(self.dtype_exclude),
            format=cast("Literal['pt', 'safetensors']", self.format),  # StateDictQuery checks it
        )


async def selection_in_query(
    component: Annotated[
        str | None, Query(description="dotted path; `''` for a flat file; left out: the model's state_dict")
    ] = None,
    strip_prefix: Annotated[
        list[str], Query(description="prefixes to strip from the keys, one after another", max_length=MAX_PREFIXES)
    ] = [],  # noqa: B006 - as below
    include: Annotated[
        list[str],
        Query(description="keys to keep: globs in which `*` matches dots too, or `re:` and a regular expression"),
    ] = [],  # noqa: B006 - FastAPI reads it as a default, and nobody changes it
    exclude: Annotated[list[str], Query(description="keys to leave out, written as for `include`")] = [],  # noqa: B006 - as above
    rename: Annotated[list[str], Query(description="`OLD=>NEW`, prefix to prefix; or `re:OLD=>NEW` with `\\1`")] = [],  # noqa: B006 - as above
    add_prefix: Annotated[str | None, Query(description="prefix to add to every key")] = None,
    device: Annotated[str | None, Query(description="device that `torch.load` loads to; left out: as saved")] = None,
    dtype: Annotated[
        str | None, Query(description="dtype to cast floating tensors to: `float32`, `float16`, `bfloat16`")
    ] = None,
    dtype_exclude: Annotated[list[str], Query(description="new keys that are not cast, written as for `include`")] = [],  # noqa: B006 - as above
    format_: Annotated[str, Query(alias="format", description="`pt` or `safetensors`")] = "pt",
) -> StateDictQuery:
    return SelectionBody(
        component=component,
        strip_prefix=strip_prefix,
        include=include,
        exclude=exclude,
        rename=[parse_rename(each) for each in rename],
        add_prefix=add_prefix,
        device=device,
        dtype=dtype,
        dtype_exclude=dtype_exclude,
        format=format_,
    ).query


Selection = Annotated[StateDictQuery, Depends(selection_in_query)]


@dataclass(frozen=True, slots=True)
class SelectionOrPlan:
    """The wanted part of a checkpoint: a selection, or the plan of an earlier warm start."""

    selection: StateDictQuery
    plan: str | None

    def of(self, checkpoint: Checkpoint, deliver: Deliver, keep: timedelta | None = None) -> Download:
        """Plan the download; blocks. A plan is kept for ``keep`` from now on. Raises SelectionError, and Gone for an
        expired plan.
        """
        if self.plan is None:
            return deliver.state_dict(checkpoint, self.selection)
        return deliver.planned(checkpoint, self.plan, keep)


async def selection_or_plan(
    selection: Selection,
    plan: Annotated[str | None, Query(description="from a warmstart response; replaces the selection")] = None,
) -> SelectionOrPlan:
    if plan is not None and selection != StateDictQuery():
        raise InvalidRequest(
            "a plan already is a selection: send either `plan` or the other selection parameters",
            code="plan-and-selection",
        )
    return SelectionOrPlan(selection, plan)


SelectedDep = Annotated[SelectionOrPlan, Depends(selection_or_plan)]
