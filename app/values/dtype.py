"""The element types a checkpoint can hold, under torch's names."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DType:
    """An element type.

    ``name`` is torch's, without ``torch.``; ``itemsize`` is in bytes; ``storage_class`` is the name of the typed
    storage that torch writes for it, or None where torch writes an untyped storage and a ``_rebuild_tensor_v3``.
    """

    name: str
    itemsize: int
    storage_class: str | None = None

    @property
    def word(self) -> int:
        """Bytes in a unit that has a byte order: a complex number is two words."""
        return self.itemsize // 2 if self.name.startswith("complex") else self.itemsize

    @property
    def is_floating(self) -> bool:
        """Tell whether the dtype can be cast: each element is one number with a sign and an exponent."""
        return self.name.startswith(("float", "bfloat")) and self.name != "float4_e2m1fn_x2"


DTYPES: dict[str, DType] = {
    dtype.name: dtype
    for dtype in (
        DType("float64", 8, "DoubleStorage"),
        DType("float32", 4, "FloatStorage"),
        DType("float16", 2, "HalfStorage"),
        DType("bfloat16", 2, "BFloat16Storage"),
        DType("int64", 8, "LongStorage"),
        DType("int32", 4, "IntStorage"),
        DType("int16", 2, "ShortStorage"),
        DType("int8", 1, "CharStorage"),
        DType("uint8", 1, "ByteStorage"),
        DType("bool", 1, "BoolStorage"),
        DType("complex128", 16, "ComplexDoubleStorage"),
        DType("complex64", 8, "ComplexFloatStorage"),
        DType("complex32", 4),
        DType("quint8", 1, "QUInt8Storage"),
        DType("qint8", 1, "QInt8Storage"),
        DType("qint32", 4, "QInt32Storage"),
        DType("quint4x2", 1, "QUInt4x2Storage"),
        DType("quint2x4", 1, "QUInt2x4Storage"),
        DType("uint16", 2),
        DType("uint32", 4),
        DType("uint64", 8),
        DType("float8_e4m3fn", 1),
        DType("float8_e5m2", 1),
        DType("float8_e4m3fnuz", 1),
        DType("float8_e5m2fnuz", 1),
        DType("float8_e8m0fnu", 1),
        DType("float4_e2m1fn_x2", 1),
    )
}
"""Every dtype Stateroom understands, by torch's name."""

DTYPE_OF_STORAGE_CLASS: dict[str, DType] = {
    dtype.storage_class: dtype for dtype in DTYPES.values() if dtype.storage_class is not None
}
