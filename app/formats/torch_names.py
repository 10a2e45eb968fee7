"""Names in a checkpoint's pickle that torch allows or refuses. Names are compared, never imported."""

from .pickle.nodes import Global

_PLAIN = (
    "_codecs.encode builtins.bytearray builtins.complex builtins.set collections.Counter collections.OrderedDict "
    "torch.Size torch.Tensor torch.device torch.nn.parameter.Parameter torch.serialization._get_layout "
    "torch._tensor._rebuild_from_type_v2 torch.storage.TypedStorage torch.storage.UntypedStorage"
)
_REBUILD = (
    "device_tensor_from_cpu_tensor device_tensor_from_numpy meta_tensor_no_storage nested_tensor parameter "
    "parameter_with_state qtensor sparse_tensor tensor tensor_v2 tensor_v3 wrapper_subclass"
)
_DTYPES = (
    "bfloat16 bits16 bits1x8 bits2x4 bits4x2 bits8 bool complex32 complex64 complex128 float16 float32 float64 "
    "float4_e2m1fn_x2 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu "
    "int1 int2 int3 int4 int5 int6 int7 int8 int16 int32 int64 qint8 qint32 quint8 quint2x4 quint4x2 "
    "uint1 uint2 uint3 uint4 uint5 uint6 uint7 uint8 uint16 uint32 uint64"
)
_QSCHEMES = (
    "per_channel_affine per_channel_affine_float_qparams per_channel_symmetric per_tensor_affine per_tensor_symmetric"
)
_STORAGES = "BFloat16 Bool Byte Char ComplexDouble ComplexFloat Double Float Half Int Long Short"
_QUANTIZED_STORAGES = "QInt32 QInt8 QUInt2x4 QUInt4x2 QUInt8"
_TENSORS = "BFloat16 Byte Char Double Float Half Int Long Short"

WEIGHTS_ONLY = frozenset(
    [
        *_PLAIN.split(),
        *(f"torch._utils._rebuild_{name}" for name in _REBUILD.split()),
        *(f"torch.{name}" for name in (_DTYPES + " " + _QSCHEMES).split()),
        *(f"torch.{name}Storage" for name in (_STORAGES + " " + _QUANTIZED_STORAGES).split()),
        *(f"torch.cuda.{name}Storage" for name in _STORAGES.split()),
        *(f"{module}.{name}Tensor" for module in ("torch", "torch.cuda") for name in ("Bool", *_TENSORS.split())),
        *(f"{module}.{name}Tensor" for module in ("torch.sparse", "torch.cuda.sparse") for name in _TENSORS.split()),
    ]
)
"""Full names that ``torch.load(weights_only=True)`` accepts in torch 2.13 without registered additions."""

_SHARDED_CLASSES = frozenset({"DTensor", "DTensorSpec", "ShardedTensor", "ShardedTensorMetadata", "Shard"})
_SHARDED_MODULES = ("torch.distributed.tensor", "torch.distributed._tensor", "torch.distributed._shard")


def is_allowed(name: Global) -> bool:
    """Tell whether torch's weights_only list holds a name."""
    return name.full_name in WEIGHTS_ONLY


def is_sharded(name: Global) -> bool:
    """Tell whether a name means that one rank's part of a distributed tensor was saved."""
    return name.name in _SHARDED_CLASSES and name.module.startswith(_SHARDED_MODULES)
