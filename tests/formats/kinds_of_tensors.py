"""One tensor of each kind: those that a listing shows, and those that it does not."""

from collections.abc import Callable

import torch


def per_channel(dtype: torch.dtype) -> torch.Tensor:
    zero_points = torch.tensor([0.0, 1.0]) if dtype is torch.quint4x2 else torch.tensor([0, 1])
    return torch.quantize_per_channel(torch.randn(2, 5), torch.tensor([0.1, 0.2]), zero_points, 0, dtype)


Make = Callable[[], torch.Tensor]


LISTED: dict[str, Make] = {
    "0-dim": lambda: torch.tensor(1.5),
    "empty": lambda: torch.zeros(0, 3),
    "expanded": lambda: torch.ones(1).expand(1000, 1000),
    "overlapping": lambda: torch.arange(10.0).as_strided((4, 4), (1, 2)),
    "transposed": lambda: torch.arange(12.0).view(3, 4).t(),
    "channels last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "conjugate": lambda: torch.randn(3, dtype=torch.complex64).conj(),
    "negative": lambda: torch.randn(3, dtype=torch.complex64).conj().imag,
    "complex32": lambda: torch.ones(2, dtype=torch.complex32),
    "complex128": lambda: torch.randn(2, dtype=torch.complex128),
    "float8_e4m3fn": lambda: torch.ones(3).to(torch.float8_e4m3fn),
    "float8_e5m2": lambda: torch.ones(3).to(torch.float8_e5m2),
    "float8_e8m0fnu": lambda: torch.ones(3).to(torch.float8_e8m0fnu),
    "float4_e2m1fn_x2": lambda: torch.arange(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    "uint16": lambda: torch.ones(3, dtype=torch.uint16),
    "uint64": lambda: torch.ones(3, dtype=torch.uint64),
    "qint8": lambda: torch.quantize_per_tensor(torch.randn(4, 5), 0.1, 0, torch.qint8),
    "quint8": lambda: torch.quantize_per_tensor(torch.randn(4, 5), 0.1, 3, torch.quint8),
    "qint32": lambda: torch.quantize_per_tensor(torch.randn(4, 5), 0.1, 0, torch.qint32),
    "per channel": lambda: per_channel(torch.qint8),
    "quint4x2": lambda: per_channel(torch.quint4x2),
    "meta": lambda: torch.empty(2, 3, device="meta"),
    "meta parameter": lambda: torch.nn.Parameter(torch.empty(2, 3, device="meta", dtype=torch.float16)),
}


NOT_LISTED: dict[str, Make] = {
    "sparse": lambda: torch.sparse_coo_tensor([[0, 0], [1, 1]], [1.0, 2.0], (2, 2)),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "csc": lambda: torch.eye(3).to_sparse_csc(),
    "bsr": lambda: torch.eye(4).to_sparse_bsr((2, 2)),
    "bsc": lambda: torch.eye(4).to_sparse_bsc((2, 2)),
    "sparse parameter": lambda: torch.nn.Parameter(torch.eye(3).to_sparse()),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.zeros(3)]),
    "bits8": lambda: torch.arange(4, dtype=torch.uint8).view(torch.bits8),
}
