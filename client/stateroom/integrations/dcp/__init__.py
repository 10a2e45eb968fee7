"""torch.distributed.checkpoint: N processes save one checkpoint, and any number of processes load it, or any other.

    dcp.save({"model": net.state_dict()}, storage_writer=StateroomWriter(model, step=900))
    dcp.load({"model": net.state_dict()}, storage_reader=StateroomReader(model, "latest"))

Tried with torch 2.13.0.
"""

from ..._errors import TorchRequired

try:
    from .reader import StateroomReader
    from .writer import StateroomWriter
except ImportError as error:
    raise TorchRequired(f"stateroom.integrations.dcp needs torch ({error}): pip install 'stateroom[torch]'") from error

__all__ = ["StateroomReader", "StateroomWriter"]
