"""Refusals of what a thinned checkpoint has lost."""

from ..errors import Gone
from ..values.checkpoint import Checkpoint
from ..values.manifest import Manifest


def refuse_thinned(checkpoint: Checkpoint, what: str) -> None:
    """Raise Gone for a part of a checkpoint that needs its optimizers' bytes, if those were removed."""
    if checkpoint.thinned_at is not None:
        names = [repr(one.name) for one in checkpoint.components if one.kind == "state_dict"]
        left = f"its state_dicts are still there: {', '.join(names[:10])}{', ...' if names[10:] else ''}"
        raise Gone(
            f"{what} of {checkpoint.model}@{checkpoint.version} is gone: the optimizers' bytes were removed at "
            f"{checkpoint.thinned_at:%Y-%m-%d %H:%M} UTC, by the rule thin_after; {left}",
            code="thinned",
        )


def refuse_thinned_optimizer(checkpoint: Checkpoint, manifest: Manifest, number: int | None) -> None:
    """Raise Gone if component ``number`` of a thinned checkpoint is an optimizer."""
    if number is not None and manifest.components[number].kind == "optimizer":
        refuse_thinned(checkpoint, manifest.components[number].name)
