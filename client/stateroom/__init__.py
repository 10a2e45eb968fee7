"""The client of Stateroom, a checkpoint service for PyTorch.

from stateroom import Client

model = Client().model("vision/resnet50")
model.save({"epoch": 3, "model_state_dict": net.state_dict()}, loss=0.12)
net.load_state_dict(model.state_dict("best", map_location="cpu"))
"""

from ._alias import Alias, AliasChange
from ._checkpoint import Checkpoint, Component, ModelSummary, Pin, SpooledCheckpoint
from ._client import Client
from ._errors import (
    BadFolder,
    CheckpointNotFound,
    ComponentAmbiguous,
    Conflict,
    DigestMismatch,
    EventsExpired,
    Gone,
    HostileCheckpoint,
    InvalidRequest,
    ModelNotFound,
    NoKeysMatched,
    NotACheckpoint,
    NoTensors,
    NotFound,
    PartialLoadError,
    PreconditionFailed,
    QuotaExceeded,
    RefusedCheckpoint,
    SelectionError,
    ServerError,
    ServerUnavailable,
    ShardedTensor,
    StateDictMismatch,
    StateroomError,
    StateroomWarning,
    StorageFull,
    Superseded,
    TensorNotFound,
    TorchRequired,
    Unauthorized,
    UnexpectedAnswer,
    UnknownComponent,
    UnsafeGlobals,
)
from ._event import Event
from ._files import FileInfo
from ._history import HistoryEntry
from ._inside import Diff, Difference, Histogram, Stats, TensorForm, TensorStats
from ._lineage import Lineage, Merge, MergeSource, Relative
from ._load.following import Following, Update
from ._model import Model
from ._namespace import Namespace
from ._report import Mismatch, Report
from ._retention import RetentionPreview
from ._tensor_info import TensorInfo
from ._token import Token
from ._upload.job import SaveJob
from ._version import __version__
from ._webhook import Webhook, WebhookDelivery

__all__ = [
    "Alias",
    "AliasChange",
    "BadFolder",
    "Checkpoint",
    "CheckpointNotFound",
    "Client",
    "Component",
    "ComponentAmbiguous",
    "Conflict",
    "Diff",
    "Difference",
    "DigestMismatch",
    "Event",
    "EventsExpired",
    "FileInfo",
    "Following",
    "Gone",
    "Histogram",
    "HistoryEntry",
    "HostileCheckpoint",
    "InvalidRequest",
    "Lineage",
    "Merge",
    "MergeSource",
    "Mismatch",
    "Model",
    "ModelNotFound",
    "ModelSummary",
    "Namespace",
    "NoKeysMatched",
    "NoTensors",
    "NotACheckpoint",
    "NotFound",
    "PartialLoadError",
    "Pin",
    "PreconditionFailed",
    "QuotaExceeded",
    "RefusedCheckpoint",
    "Relative",
    "Report",
    "RetentionPreview",
    "SaveJob",
    "SelectionError",
    "ServerError",
    "ServerUnavailable",
    "ShardedTensor",
    "SpooledCheckpoint",
    "StateDictMismatch",
    "StateroomError",
    "StateroomWarning",
    "Stats",
    "StorageFull",
    "Superseded",
    "TensorForm",
    "TensorInfo",
    "TensorNotFound",
    "TensorStats",
    "Token",
    "TorchRequired",
    "Unauthorized",
    "UnexpectedAnswer",
    "UnknownComponent",
    "UnsafeGlobals",
    "Update",
    "Webhook",
    "WebhookDelivery",
    "__version__",
]
