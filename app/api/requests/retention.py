"""Rules of retention as JSON."""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ...catalog.refs import parse_best
from ...errors import InvalidRequest
from ...values.duration import parse_duration
from ...values.retention import Rules, rules_from_json, rules_to_json

MAX_BEST = 20
"""Most rules by which the best checkpoints are kept."""


def _is_rank(text: str) -> str:
    try:
        parse_best(text)
    except InvalidRequest as error:
        raise ValueError(error.detail.replace("best", "by", 1)) from None
    return text


def _is_positive(text: str) -> str:
    if parse_duration(text) <= timedelta(0):
        raise ValueError("a duration must be longer than 0")
    return text


Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Duration = Annotated[str, AfterValidator(_is_positive)]
"""A duration above 0, such as ``30d`` or ``12h``."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class KeepBest(_Strict):
    """The best checkpoints by `min:NAME` or `max:NAME`, where NAME is `loss` or a metric."""

    by: Annotated[str, AfterValidator(_is_rank)] = Field(examples=["max:val_acc"])
    count: Count = 1


class KeepEvery(_Strict):
    """Checkpoints whose epoch, or step, is a multiple."""

    epochs: Count | None = None
    steps: Count | None = None


class ThinAfter(_Strict):
    """All but the newest lose their optimizers' bytes."""

    keep_last: Count


class RetentionRules(_Strict):
    """A checkpoint stays if any rule keeps it, in each run by itself. `thin_after` alone removes none."""

    keep_last: Count | None = Field(None, description="the newest checkpoints", examples=[3])
    keep_best: list[KeepBest] | None = Field(None, max_length=MAX_BEST)
    keep_every: KeepEvery | None = None
    keep_for: Duration | None = Field(None, description="all that are younger", examples=["30d"])
    thin_after: ThinAfter | None = None

    def rules(self) -> Rules:
        """Return the rules. Raises InvalidRequest, code ``bad-retention``, if there is none."""
        rules = rules_from_json(self.model_dump(exclude_none=True))
        if not rules_to_json(rules):
            raise InvalidRequest(
                "retention has no rule: give keep_last, keep_best, keep_every, keep_for or thin_after, or null to keep "
                "everything",
                code="bad-retention",
            )
        return rules

    @classmethod
    def of(cls, rules: Rules | None) -> "RetentionRules | None":
        document: dict[str, Any] = {} if rules is None else rules_to_json(rules)
        return None if rules is None else cls(**document)
