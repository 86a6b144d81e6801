"""Table of kernels: for each its file, its launch shape, and what it is compiled for.

The letters are those of the shapes in the kernel's signature.  The storage type is the option
-DREAL; a kernel that knows its head size has it by -DD.
"""

from collections.abc import Callable, Iterator
from math import ceil
from typing import NamedTuple

HEAD_SIZES = (32, 64, 80, 128)
STORAGE = {"float32": "float", "float16": "f16", "bfloat16": "bf16"}
Sizes = dict[str, int]


class Kernel(NamedTuple):
    """What must be known of a kernel to launch it."""

    file: str
    grid: Callable[[Sizes], tuple[int, ...]]
    threads: int
    storage: tuple[str, ...] = ("float", "f16", "bf16")  # that it is compiled for
    heads: bool = False  # whether it is compiled for each head size
    multiples: tuple[tuple[str, int], ...] = ()  # sizes that must be a multiple of something
    limits: tuple[tuple[str, int], ...] = ()  # the most that a size may be
    least_architecture: int = 75  # sm_75: Turing
    threads_wide: int = 0  # instead of `threads` for heads of more than 80 features


def threads_of(kernel: Kernel, d: int) -> int:
    """Return the threads of a block for heads of D features (0 for none)."""
    return kernel.threads_wide if kernel.threads_wide and d > 80 else kernel.threads


def mma_tiles(n: Sizes) -> tuple[int, int]:
    """Return the grid of attention_mma.cu: blocks of 64 rows, or 32 for D = 128; heads."""
    return ceil(n["N"] / (64 if n["D"] <= 80 else 32)), n["H"]


def attention_tile(d: int) -> int:
    """Return the rows of a tile of attention.cu for D features."""
    return 32 if d <= 80 else 16


def tiles(n: Sizes) -> tuple[int, int]:
    """Return the grid of attention: tiles of rows, heads."""
    return ceil(n["N"] / attention_tile(n["D"])), n["H"]


SHORT = ("f16", "bf16")  # storage types of 16 bits
FLAT_BLOCKS = 2048  # of a kernel that walks through a flat array in strides: several waves

KERNELS = {
    "embedding_forward": Kernel(
        "embedding.cu",
        lambda n: (n["N"],),
        128,
        multiples=(("C", 4),),
    ),
    "embedding_backward": Kernel(
        "embedding.cu",
        lambda n: (n["N"],),
        128,
        multiples=(("C", 4),),
    ),
    "layer_norm_forward": Kernel(
        "layer_norm.cu",
        lambda n: (n["N"],),
        256,
        limits=(("C", 2048),),
    ),
    "layer_norm_backward": Kernel(
        "layer_norm.cu",
        lambda n: (n["R"],),
        256,
        limits=(("C", 2048),),
    ),
    "layer_norm_sum": Kernel(
        "layer_norm.cu",
        lambda n: (ceil(n["C"] / 256), 2),
        256,
    ),
    "gelu_forward": Kernel(
        "gelu.cu",
        lambda n: (n["N"], ceil(n["F"] / 1024)),
        256,
        multiples=(("F", 4),),
    ),
    "gelu_backward": Kernel(
        "gelu.cu",
        lambda n: (n["N"], ceil(n["F"] / 1024)),
        256,
        multiples=(("F", 4),),
    ),
    "attention_reach": Kernel(
        "attention.cu",
        lambda n: (n["R"],),
        32,
        storage=("float",),
        heads=True,
    ),
    "attention_forward": Kernel(
        "attention.cu",
        tiles,
        64,
        heads=True,
    ),
    "attention_row_dots": Kernel(
        "attention.cu",
        lambda n: (ceil(n["N"] * n["H"] / 4),),
        128,
        heads=True,
    ),
    "attention_dkv": Kernel("attention.cu", tiles, 64, heads=True),
    "attention_dq": Kernel("attention.cu", tiles, 64, heads=True),
    **{
        f"attention_mma_{name}": Kernel(
            "attention_mma.cu",
            mma_tiles,
            128,
            storage=SHORT,
            heads=True,
            least_architecture=80,
            threads_wide=64,
        )
        for name in ("forward", "dkv", "dq")
    },
    "cross_entropy": Kernel(
        "cross_entropy.cu",
        lambda n: (n["M"],),
        512,
    ),
    "squares": Kernel(
        "norm.cu",
        lambda n: (n["R"],),
        256,
        storage=("float",),
    ),
    "global_norm": Kernel(
        "norm.cu",
        lambda n: (1,),
        256,
        storage=("float",),
    ),
    "adamw": Kernel(
        "adamw.cu",
        lambda n: (min(FLAT_BLOCKS, ceil(n["P"] / 1024)),),
        256,
    ),
}


def variants(kernel: Kernel) -> Iterator[tuple[str, ...]]:
    """Yield the options of each variant that a kernel is compiled for."""
    for storage in kernel.storage:
        for d in HEAD_SIZES if kernel.heads else (0,):
            yield options_of(storage, d)


def options_of(storage: str, d: int) -> tuple[str, ...]:
    """Return the compiler's options for a storage type and a head size (0 for none)."""
    return (f"-DREAL={storage}", *((f"-DD={d}",) if d else ()))
