"""Table of kernels: for each its file, its parameters, and how it is launched.

A parameter is written as its type, its name, and, for an array, its shape:
    const real x (N, C)     an array of the storage type, which the kernel only reads
    float nll (M)           an array of float32 that it writes, too
    const real? a (N, C)    an array that may be missing
    int C                   a number; the size C, taken from the shapes
    float eps               a number that the caller names
Letters stand for sizes.  They are taken from the shapes of the arrays, and the same letter must be
the same size everywhere; so no size is ever passed by hand.  The parameters are those of the
kernel in their order: a test reads the source and compares.

The storage type is -DREAL; a kernel that knows its head size has it by -DD.
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
    parameters: tuple[str, ...]
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


BACKWARD = (
    "const real qkv (N, 3, H, D)",
    "const real d_o (N, H, D)",
    "const int end (N)",
    "const int reach (R)",
    "const float lse (H, N)",
    "const float row_dots (H, N)",
    "real dqkv (N, 3, H, D)",
    "int N",
    "int H",
    "float scale",
)
FORWARD = (
    "const real qkv (N, 3, H, D)",
    "const int end (N)",
    "const int reach (R)",
    "real o (N, H, D)",
    "float lse (H, N)",
    "int N",
    "int H",
    "float scale",
)
SHORT = ("f16", "bf16")  # storage types of 16 bits
FLAT_BLOCKS = 2048  # of a kernel that walks through a flat array in strides: several waves

KERNELS = {
    "embedding_forward": Kernel(
        "embedding.cu",
        (
            "const real wte (V, C)",
            "const real wpe (T, C)",
            "const int ids (N)",
            "const int positions (N)",
            "real x (N, C)",
            "int C",
        ),
        lambda n: (n["N"],),
        128,
        multiples=(("C", 4),),
    ),
    "embedding_backward": Kernel(
        "embedding.cu",
        (
            "const real dx (N, C)",
            "const int index (N)",
            "const int order (N)",
            "float dtable (V, C)",
            "int N",
            "int C",
        ),
        lambda n: (n["N"],),
        128,
        multiples=(("C", 4),),
    ),
    "layer_norm_forward": Kernel(
        "layer_norm.cu",
        (
            "const real stream (N, C)",
            "const real? a (N, C)",
            "const real gamma (C)",
            "const real beta (C)",
            "real? x (N, C)",
            "real y (N, C)",
            "float mean (N)",
            "float inverse (N)",
            "int C",
            "float eps",
        ),
        lambda n: (n["N"],),
        256,
        limits=(("C", 2048),),
    ),
    "layer_norm_backward": Kernel(
        "layer_norm.cu",
        (
            "const real dy (N, C)",
            "const real x (N, C)",
            "const real gamma (C)",
            "const float mean (N)",
            "const float inverse (N)",
            "const real? passing (N, C)",
            "real dx (N, C)",
            "float partial (R, 2, C)",
            "int N",
            "int C",
            "int R",
        ),
        lambda n: (n["R"],),
        256,
        limits=(("C", 2048),),
    ),
    "layer_norm_sum": Kernel(
        "layer_norm.cu",
        ("const float partial (R, 2, C)", "float both (2, C)", "int R", "int C"),
        lambda n: (ceil(n["C"] / 256), 2),
        256,
    ),
    "gelu_forward": Kernel(
        "gelu.cu",
        ("const real h (N, F)", "const real? b (F)", "real y (N, F)", "int F"),
        lambda n: (n["N"], ceil(n["F"] / 1024)),
        256,
        multiples=(("F", 4),),
    ),
    "gelu_backward": Kernel(
        "gelu.cu",
        (
            "const real dy (N, F)",
            "const real h (N, F)",
            "const real? b (F)",
            "real dx (N, F)",
            "int F",
        ),
        lambda n: (n["N"], ceil(n["F"] / 1024)),
        256,
        multiples=(("F", 4),),
    ),
    "attention_reach": Kernel(
        "attention.cu",
        ("const int end (N)", "int reach (R)", "int N"),
        lambda n: (n["R"],),
        32,
        storage=("float",),
        heads=True,
    ),
    "attention_forward": Kernel(
        "attention.cu",
        FORWARD,
        tiles,
        64,
        heads=True,
    ),
    "attention_row_dots": Kernel(
        "attention.cu",
        (
            "const real o (N, H, D)",
            "const real d_o (N, H, D)",
            "float row_dots (H, N)",
            "int N",
            "int H",
        ),
        lambda n: (ceil(n["N"] * n["H"] / 4),),
        128,
        heads=True,
    ),
    "attention_dkv": Kernel("attention.cu", BACKWARD, tiles, 64, heads=True),
    "attention_dq": Kernel("attention.cu", BACKWARD, tiles, 64, heads=True),
    **{
        f"attention_mma_{name}": Kernel(
            "attention_mma.cu",
            parameters,
            mma_tiles,
            128,
            storage=SHORT,
            heads=True,
            least_architecture=80,
            threads_wide=64,
        )
        for name, parameters in (("forward", FORWARD), ("dkv", BACKWARD), ("dq", BACKWARD))
    },
    "cross_entropy": Kernel(
        "cross_entropy.cu",
        (
            "real logits (M, W)",
            "const int targets (M)",
            "const float weights (M)",
            "float nll (M)",
            "int V",
            "int W",
            "int gradient",
        ),
        lambda n: (n["M"],),
        512,
    ),
    "squares": Kernel(
        "norm.cu",
        ("const float g (P)", "float partial (R)", "long P"),
        lambda n: (n["R"],),
        256,
        storage=("float",),
    ),
    "global_norm": Kernel(
        "norm.cu",
        ("const float partial (R)", "float result (1)"),
        lambda n: (1,),
        256,
        storage=("float",),
    ),
    "adamw": Kernel(
        "adamw.cu",
        (
            "float theta (P)",
            "const float g (P)",
            "float m (P)",
            "float v (P)",
            "real? copy (P)",
            "const float norm (1)",
            "long P",
            "long decayed",
            "float clip",
            "float unscale",
            "float beta1",
            "float one_minus_beta1",
            "float beta2",
            "float one_minus_beta2",
            "float eta_hat",
            "float root_correction",
            "float eps",
            "float keep",
        ),
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
