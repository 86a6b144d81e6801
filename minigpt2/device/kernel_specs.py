"""Kernel specs: for each kernel its file, its launch shape, and what it is compiled for.

The letters are those of the shapes in the kernel's signature.  The storage type is the option
-DREAL; a kernel that knows its head size has it by -DD.
"""

from collections.abc import Callable, Iterator
from math import ceil
from typing import NamedTuple

HEAD_SIZES = (32, 64, 80, 128)
STORAGE = {"float32": "float", "float16": "f16", "bfloat16": "bf16"}
SHORT = ("f16", "bf16")  # storage types of 16 bits
FLAT_BLOCKS = 2048  # of a kernel that walks through a flat array in strides: several waves
Sizes = dict[str, int]


class KernelSpec(NamedTuple):
    """What a launch of a kernel needs besides its signature."""

    file: str
    grid: Callable[[Sizes], tuple[int, ...]]
    threads: int
    storage: tuple[str, ...] = ("float", "f16", "bf16")  # the types that it is compiled for
    per_head_size: bool = False  # whether it is compiled for each head size
    multiples: tuple[tuple[str, int], ...] = ()  # sizes that must be a multiple of something
    limits: tuple[tuple[str, int], ...] = ()  # the largest value of a size
    min_architecture: int = 75  # sm_75: Turing
    threads_wide: int = 0  # instead of `threads` for heads of more than 80 features


def threads_of(kernel: KernelSpec, d: int) -> int:
    """Return the threads of a block for heads of D features (0 for none)."""
    return kernel.threads_wide if kernel.threads_wide and d > 80 else kernel.threads


def attention_tile(d: int) -> int:
    """Return the rows of a tile of attention.cu for D features."""
    return 32 if d <= 80 else 16


def attention_grid(n: Sizes) -> tuple[int, int]:
    """Return the grid of attention.cu: tiles of rows, heads."""
    return ceil(n["N"] / attention_tile(n["D"])), n["H"]


def mma_rows(d: int) -> int:
    """Return the rows of a block of attention_mma.cu for D features."""
    return 64 if d <= 80 else 32


def mma_grid(n: Sizes) -> tuple[int, int]:
    """Return the grid of attention_mma.cu: blocks of rows, heads."""
    return ceil(n["N"] / mma_rows(n["D"])), n["H"]


MMA = KernelSpec(
    "attention_mma.cu",
    mma_grid,
    threads=128,
    threads_wide=64,
    storage=SHORT,
    per_head_size=True,
    min_architecture=80,
)
KERNELS = {
    "embedding_forward": KernelSpec(
        "embedding.cu", lambda n: (n["N"],), threads=128, multiples=(("C", 4),)
    ),
    "embedding_backward": KernelSpec(
        "embedding.cu", lambda n: (n["N"],), threads=128, multiples=(("C", 4),)
    ),
    "layer_norm_forward": KernelSpec(
        "layer_norm.cu", lambda n: (n["N"],), threads=256, limits=(("C", 2048),)
    ),
    "layer_norm_backward": KernelSpec(
        "layer_norm.cu", lambda n: (n["R"],), threads=256, limits=(("C", 2048),)
    ),
    "layer_norm_sum": KernelSpec("layer_norm.cu", lambda n: (ceil(n["C"] / 256), 2), threads=256),
    "gelu_forward": KernelSpec(
        "gelu.cu", lambda n: (n["N"], ceil(n["F"] / 1024)), threads=256, multiples=(("F", 4),)
    ),
    "gelu_backward": KernelSpec(
        "gelu.cu", lambda n: (n["N"], ceil(n["F"] / 1024)), threads=256, multiples=(("F", 4),)
    ),
    "attention_max_end": KernelSpec(
        "attention.cu", lambda n: (n["R"],), threads=32, storage=("float",), per_head_size=True
    ),
    "attention_forward": KernelSpec("attention.cu", attention_grid, threads=64, per_head_size=True),
    "attention_delta": KernelSpec(
        "attention.cu",
        lambda n: (ceil(n["N"] * n["H"] / 4),),
        threads=128,
        per_head_size=True,
    ),
    "attention_dkv": KernelSpec("attention.cu", attention_grid, threads=64, per_head_size=True),
    "attention_dq": KernelSpec("attention.cu", attention_grid, threads=64, per_head_size=True),
    "attention_mma_forward": MMA,
    "attention_mma_dkv": MMA,
    "attention_mma_dq": MMA,
    "cross_entropy": KernelSpec("cross_entropy.cu", lambda n: (n["M"],), threads=512),
    "squares": KernelSpec("grad_norm.cu", lambda n: (n["R"],), threads=256, storage=("float",)),
    "global_norm": KernelSpec("grad_norm.cu", lambda n: (1,), threads=256, storage=("float",)),
    "adamw": KernelSpec(
        "adamw.cu", lambda n: (min(FLAT_BLOCKS, ceil(n["P"] / 1024)),), threads=256
    ),
}


def variants(kernel: KernelSpec) -> Iterator[tuple[str, ...]]:
    """Yield the compiler's options for each variant of a kernel."""
    for storage in kernel.storage:
        for d in HEAD_SIZES if kernel.per_head_size else (0,):
            yield options_of(storage, d)


def options_of(storage: str, d: int) -> tuple[str, ...]:
    """Return the compiler's options for a storage type and a head size (0 for none)."""
    return (f"-DREAL={storage}", *((f"-DD={d}",) if d else ()))
