"""Kernel specs: for each kernel its file, its launch shape, and what it is compiled for.

The letters are those of the shapes in the kernel's signature.  The storage type is the option
-DREAL.  A kernel that knows its head size has it by -DD.  One that keeps a row in registers has the
row's length by -DPARTS: a part is what a warp reads at once, 16 bytes a lane.  Rows that are not a
whole number of such accesses are read number by number (-DODD).  A kernel that is compiled a second
time, with options of its own, has another name here than in its file.
"""

from collections.abc import Callable, Iterator
from functools import partial
from math import ceil
from typing import NamedTuple

from minigpt2.device.attention_blocks import (
    FORWARD_ROWS,
    Sizes,
    dkv_rows,
    dkv_shared,
    dq_rows,
    dq_shared,
    dq_stored_shared,
    forward_shared,
    simple_rows,
    simple_shared,
)

HEAD_SIZES = (32, 64, 80, 128)
STORAGE = {"float32": "float", "float16": "f16", "bfloat16": "bf16"}
SHORT = ("f16", "bf16")  # storage types of 16 bits
BYTES = {"float": 4, "f16": 2, "bf16": 2}
ACCESS = 16  # bytes: the widest access of a thread
LONGEST_ROW = 2048  # numbers in a row that a warp keeps in registers
ROWS = (224, 768, 1024, 1280, 1600, 2047, LONGEST_ROW)  # lengths of rows that are always compiled
FLAT_BLOCKS = 2048  # of a kernel that walks through a flat array in strides: several waves


class KernelSpec(NamedTuple):
    """What a launch of a kernel needs besides its signature."""

    file: str
    grid: Callable[[Sizes], tuple[int, ...]]
    threads: int  # 0: as many as a set of rows needs, see sets_of
    storage: tuple[str, ...] = ("float", "f16", "bf16")  # the types that it is compiled for
    per_head_size: bool = False  # whether it is compiled for each head size
    row: str = ""  # the letter of a row's length, if that may be no whole number of accesses
    per_row: bool = False  # whether it is compiled for each length of a row, in parts
    multiples: tuple[tuple[str, int], ...] = ()  # sizes that must be a multiple of something
    whole: tuple[str, ...] = ()  # sizes that must be a whole number of accesses
    limits: tuple[tuple[str, int], ...] = ()  # the largest value of a size
    min_architecture: int = 75  # sm_75: Turing
    threads_wide: int = 0  # instead of `threads` for heads of more than 64 features
    shared: Callable[[Sizes, int], int] | None = None  # bytes, of the sizes and a number's bytes
    function: str = ""  # its name in the file, if that is another
    options: tuple[str, ...] = ()  # of the compiler, besides those for storage and sizes


def threads_of(kernel: KernelSpec, options: tuple[str, ...]) -> int:
    """Return the threads of a block of a variant."""
    if not kernel.threads:
        parts = number_in(options, "PARTS")
        return 32 * parts * sets_of(parts)
    wide = kernel.threads_wide and number_in(options, "D") > 64
    return kernel.threads_wide if wide else kernel.threads


def sets_of(parts: int) -> int:
    """Return the rows that a block has at once where a row needs so many warps."""
    return max(1, 12 // parts)


def parts_of(c: int, bytes_of_a_number: int) -> int:
    """Return the parts of a row of C numbers, each what a warp reads at once."""
    width = ACCESS // bytes_of_a_number
    return ceil((LONGEST_ROW if c % width else c) / (32 * width))


def number_in(options: tuple[str, ...], name: str) -> int:
    """Return a number among the compiler's options; 0 if it is not there."""
    return next((int(o.split("=")[1]) for o in options if o.startswith(f"-D{name}=")), 0)


def attention_spec(file: str, backward: bool) -> KernelSpec:
    """Return the spec of a kernel that makes attention, or its gradients, without tensor cores."""
    return KernelSpec(
        file,
        lambda n: (n["H"], ceil(n["N"] / simple_rows(n["D"]))),
        threads=64,
        per_head_size=True,
        shared=partial(simple_shared, backward=backward),
    )


MMA = KernelSpec(
    "attention_mma.cu",
    lambda n: (n["H"], ceil(n["N"] / FORWARD_ROWS)),
    threads=128,
    storage=SHORT,
    per_head_size=True,
    min_architecture=80,
    shared=forward_shared,
)


def dq_spec(small: bool) -> KernelSpec:
    """Return the spec of attention_mma_dq."""
    return MMA._replace(
        file="attention_mma_dq.cu",
        grid=lambda n: (n["H"], ceil(n["N"] / dq_rows(n["D"], small))),
        shared=partial(dq_shared, small=small),
        function="attention_mma_dq",
        options=("-DSMALL=1",) if small else (),
    )


def dkv_spec(small: bool, stored: bool = False) -> KernelSpec:
    """Return the spec of attention_mma_dkv."""
    return MMA._replace(
        file="attention_mma_dkv.cu",
        grid=lambda n: (n["H"], ceil(n["N"] / dkv_rows(small))),
        threads=128 if small else 64,
        threads_wide=128,
        shared=partial(dkv_shared, small=small),
        function="attention_mma_dkv",
        options=("-DSMALL=1",) if small else ("-DSTORED=1",) if stored else (),
    )


KERNELS = {
    "embedding_forward": KernelSpec("embedding.cu", lambda n: (n["N"],), threads=128, row="C"),
    "embedding_backward": KernelSpec(
        "embedding.cu", lambda n: (n["N"],), threads=128, multiples=(("C", 4),)
    ),
    "gather_rows": KernelSpec("embedding.cu", lambda n: (n["R"],), threads=128, row="C"),
    "sum_rows": KernelSpec("sum_rows.cu", lambda n: (n["R"],), threads=128, multiples=(("C", 4),)),
    "layer_norm_forward": KernelSpec(
        "layer_norm.cu",
        lambda n: (ceil(n["N"] / 8),),
        256,
        row="C",
        per_row=True,
        limits=(("C", 2048),),
    ),
    "layer_norm_backward": KernelSpec(
        "layer_norm.cu", lambda n: (n["R"],), 0, row="C", per_row=True, limits=(("C", 2048),)
    ),
    "column_sums": KernelSpec(
        "column_sum.cu",
        lambda n: (ceil(n["K"] / (32 * n["WIDTH"])), n["R"]),
        threads=256,
        row="K",
    ),
    "column_total": KernelSpec(
        "column_sum.cu", lambda n: (ceil(n["K"] / 32),), threads=512, storage=("float",)
    ),
    "gelu_forward": KernelSpec(
        "gelu.cu",
        lambda n: (ceil(n["F"] / (32 * n["WIDTH"])), ceil(n["N"] / 16)),
        threads=256,
        row="F",
    ),
    "gelu_backward": KernelSpec(
        "gelu.cu",
        lambda n: (ceil(n["F"] / (32 * n["WIDTH"])), n["R"]),
        threads=256,
        row="F",
    ),
    "attention_forward": attention_spec("attention.cu", backward=False),
    "attention_delta": KernelSpec(
        "attention_delta.cu",
        lambda n: (n["H"], ceil(n["N"] / 64)),
        threads=128,
        per_head_size=True,
    ),
    "attention_dkv": attention_spec("attention_dkv.cu", backward=True),
    "attention_dq": attention_spec("attention_dq.cu", backward=True),
    "attention_mma_forward": MMA,
    "attention_mma_dq": dq_spec(small=False),
    "attention_mma_dq_small": dq_spec(small=True),
    "attention_mma_dkv": dkv_spec(small=False),
    "attention_mma_dkv_small": dkv_spec(small=True),
    "attention_mma_dkv_stored": dkv_spec(small=False, stored=True),
    "attention_mma_dq_stored": dq_spec(small=False)._replace(
        file="attention_mma_dq_stored.cu",
        shared=dq_stored_shared,
        function="",
    ),
    "decode_attention": KernelSpec(
        "decode_attention.cu", lambda n: (n["B"], n["H"], n["Z"]), threads=128, per_head_size=True
    ),
    "decode_attention_combine": KernelSpec(
        "decode_attention.cu", lambda n: (n["B"], n["H"]), threads=128, per_head_size=True
    ),
    "cache_rows": KernelSpec(
        "decode_attention.cu", lambda n: (n["N"],), threads=128, per_head_size=True
    ),
    "linear_row": KernelSpec(
        "linear_row.cu",
        lambda n: (n["K"] // 16,),
        threads=1024,
        multiples=(("K", 16),),
        whole=("C",),
    ),
    "logits_row": KernelSpec(
        "linear_row.cu", lambda n: (ceil(n["V"] / 128),), threads=1024, whole=("C",)
    ),
    "sample": KernelSpec("sample.cu", lambda n: (n["B"],), threads=512, multiples=(("W", 4),)),
    "cross_entropy": KernelSpec("cross_entropy.cu", lambda n: (n["M"],), threads=512, row="W"),
    "cross_entropy_staged": KernelSpec(
        "cross_entropy.cu",
        lambda n: (n["M"],),
        threads=512,
        storage=SHORT,
        whole=("W",),
        min_architecture=80,
        shared=lambda n, size: n["W"] * size,
    ),
    "squares": KernelSpec("grad_norm.cu", lambda n: (n["R"],), threads=256, storage=("float",)),
    "global_norm": KernelSpec("grad_norm.cu", lambda n: (1,), threads=256, storage=("float",)),
    "adamw": KernelSpec(
        "adamw.cu", lambda n: (min(FLAT_BLOCKS, ceil(n["P"] / 1024)),), threads=256
    ),
}


def variants(kernel: KernelSpec) -> Iterator[tuple[str, ...]]:
    """Yield the compiler's options for each variant of a kernel, once."""
    letter, sizes = ("D", HEAD_SIZES) if kernel.per_head_size else (kernel.row, ROWS)
    for storage in kernel.storage:
        every = (options_of(kernel, storage, {letter: size}) for size in sizes)
        yield from dict.fromkeys(every)


def options_of(kernel: KernelSpec, storage: str, sizes: Sizes) -> tuple[str, ...]:
    """Return the compiler's options for a kernel with a storage type and sizes."""
    options: tuple[str, ...] = (f"-DREAL={storage}",)
    if kernel.per_head_size:
        options += (f"-DD={sizes['D']}",)
    if kernel.per_row:
        options += (f"-DPARTS={parts_of(sizes[kernel.row], BYTES[storage])}",)
    if kernel.row and sizes[kernel.row] % (ACCESS // BYTES[storage]):
        options += ("-DODD",)
    return options + kernel.options
