"""What people call the parts of a checkpoint."""

from .manifest import Path

MODELS = ("model_state_dict", "state_dict", "model", "net", "module", "weights", "params")
"""What people call the model's state_dict, the most telling name first."""

_SUPPORT = ("optim", "sched", "scaler", "callback")


def is_support(path: Path) -> bool:
    """Whether a name along a path says that this is no model, but what trains one: an optimizer, a scheduler, a
    gradient scaler, a callback.
    """
    return any(word in element.lower() for element in path if type(element) is str for word in _SUPPORT)


def is_callback(path: Path) -> bool:
    return any("callback" in element.lower() for element in path if type(element) is str)
