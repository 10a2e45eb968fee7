"""Usual names of the parts of a checkpoint."""

from .manifest import Path

MODELS = ("model_state_dict", "state_dict", "model", "net", "module", "weights", "params")
"""Usual names of the model's state_dict, the most specific first."""

_SUPPORT = ("optim", "sched", "scaler", "callback")


def is_support(path: Path) -> bool:
    """Tell whether a name in a path is that of training state: optimizer, scheduler, gradient scaler, callback."""
    return any(word in element.lower() for element in path if type(element) is str for word in _SUPPORT)


def is_callback(path: Path) -> bool:
    return any("callback" in element.lower() for element in path if type(element) is str)
