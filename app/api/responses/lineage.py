"""Lineage as JSON."""

from datetime import datetime

from pydantic import BaseModel, Field

from ...values.checkpoint import Checkpoint
from ...values.lineage import Relation, Relative, Relatives, State


class RelativeView(BaseModel):
    """An ancestor or a descendant. `run`, `epoch` and `created_at` are null if they are not known."""

    model: str = Field(examples=["vision/resnet50"])
    version: int = Field(examples=[11])
    state: State = Field(
        description="`unknown`: it never existed, or is in a namespace that the token may not read", examples=["live"]
    )
    relation: Relation = Field(
        description="the field of the later checkpoint that names the earlier one; `merged_from`: its `merge`"
    )
    weight: float | None = Field(description="weight of the earlier one in the later one, of a merge", examples=[None])
    depth: int = Field(description="steps from the checkpoint, by the shortest way", examples=[1])
    via: str = Field(description="the checkpoint at the other end of the last step", examples=["vision/resnet50@12"])
    run: str | None = Field(examples=["nightly"])
    epoch: int | None = Field(examples=[3])
    created_at: datetime | None

    @classmethod
    def of(cls, relative: Relative) -> "RelativeView":
        return cls(
            model=str(relative.checkpoint.model),
            version=relative.checkpoint.version,
            state=relative.state,
            relation=relative.relation,
            weight=relative.weight,
            depth=relative.depth,
            via=str(relative.via),
            run=relative.run,
            epoch=relative.epoch,
            created_at=relative.created_at,
        )


class LineageView(BaseModel):
    """The checkpoints that a checkpoint was trained from, and those trained from it: each once, nearest first."""

    model: str = Field(examples=["vision/resnet50"])
    version: int = Field(examples=[12])
    ancestors: list[RelativeView]
    descendants: list[RelativeView]
    more_ancestors: bool = Field(description="further ancestors are left out")
    more_descendants: bool = Field(description="further descendants are left out")

    @classmethod
    def of(cls, checkpoint: Checkpoint, ancestors: Relatives, descendants: Relatives) -> "LineageView":
        return cls(
            model=str(checkpoint.model),
            version=checkpoint.version,
            ancestors=list(map(RelativeView.of, ancestors.items)),
            descendants=list(map(RelativeView.of, descendants.items)),
            more_ancestors=ancestors.more,
            more_descendants=descendants.more,
        )
