"""Memory on a GPU: the memory of a step there, counted before it is taken.

Why
    The kernels compute a step in other pieces than NumPy does: they keep the input of a
    normalisation and of GELU, not x̂ and the slope, and in 16 bits all that a pass reads and writes
    takes half the bytes.  AdamW's weights and moments, the gradients, and sums over rows stay in
    float32 (chapter 18).  In float32 s is 4, in bfloat16 and float16 it is 2.

Definition: bytes, for a micro-batch of N rows with M supervised triples, in numbers of s bytes
    The state, with P parameters: weights, gradients, m and v, and in 16 bits the rounded copy,
    4·P + 4·P + 8·P + (2·P)                                        (51.1)
    A block keeps its input x, h, q, k and v, o, r, h′ (of the second normalisation) and u and g of
    the hidden layer, 1 + 1 + 3 + 1 + 1 + 1 + 4 + 4 rows of C; in float32 a logarithm for each head,
    and the mean and r of two normalisations:
    keptₗ = 16·s·N·C + 4·N·H + 16·N  (with dropout 8·N·C more)     (51.2)
    With recomputation it keeps x, r, q, k, v and o,
    keptₗ = 6·s·N·C + 4·N·H  (with dropout 8·N·C more)             (51.3)
    and recomputes the rest of (51.2) for one block at a time, and of it h when the others are
    freed: 9·s·N·C + 16·N.  Where that saves much, a step without recomputation keeps u as well and
    recomputes what takes no product (device/captured),
    keptₗ = 10·s·N·C + 4·N·H,  again = 5·s·N·C + 16·N              (51.4)
    The loss: the last hidden rows, x before their normalisation, and their gradient; a row for each
    triple, and one chunk of B rows, whose logits have W places, V rounded up to a multiple of 64:
    loss = s·(3·N·C + M·C + B·(C + W))                             (51.5)
    A block's backward pass: the gradients of g and u (4 + 4), when g is freed already (−4), and of
    y (1), and three rows of C of the model; in float32 sums of γ's and β's gradients by at most 256
    blocks of threads.  In 16 bits, attention may store the gradients of its scores, if N is large
    (device/attention_blocks): 4,096 bytes a head for each 32 queries and 64 keys of which some see
    each other.  Of sequences that fill the context of T tokens, and begin anywhere in a tile, a
    query sees T/2 keys on average, and something of 3/2 tiles more,
    ds = 4096 · H · (N/32) · (T/64 + 3)/2                          (51.6)
    rounded up as N is.  With long prompts that many answers share it may be twice as much.
    backward = 8·s·N·C + max(8·min(N, 256)·C, ds)                  (51.7)
    In float32 the side stream (device/side_stream) may still read g at the peak: 10·s·N·C.  With
    dropout attention has no kernel, and in 16 bits its formula has qkv, o, their gradients, dk and
    dv in float32, 4·(3 + 1 + 3 + 1 + 2) bytes, next to three rows of the model:
    backward = 40·N·C + 3·s·N·C                                    (51.8)
    N and M are those of a batch that is filled up to a shape that repeats, at most an eighth more
    (without dropout).  As in (49.7) the peak is
    peak = state + Σₗ keptₗ + max(loss, again + backward)                  (51.9)
    and in addition the workspace of NVIDIA's matrix products, 32 MiB, twice where there is a side
    stream.  Not counted is what CUDA itself takes: it differs from card to card, and nvidia-smi
    shows it.

Example: GPT-2 with P = 124,439,808, in bfloat16, on 8 · 1,023 rows, all supervised
    The state takes 18 bytes a parameter (51.1), 2.24 GB.  A block keeps 16 · 2 · 8,184 · 768
    + 4 · 8,184 · 12 + 16 · 8,184 bytes (51.2), 201 MB, and 75 MB with recomputation (51.3):
    >>> from minigpt2.model.config import OFFICIAL
    >>> gpt2, batch = OFFICIAL["gpt2"], MicroBatch(rows=8184, supervised=8184)
    >>> [kept_on_device(gpt2, 8184, MemoryOptions(r), 2) // 10**6 for r in (False, True)]
    [201, 75]
    >>> parts = memory_on_device(gpt2, batch, MemoryOptions(), "bfloat16")
    >>> round(sum(parts.values()) / 1e9, 2)
    4.92

Read it
    In 16 bits the state is larger than in float32, by the copy, and all else is half as large:
    with few rows float32 takes less memory.
"""

from functools import partial
from math import ceil

from minigpt2.device import attention_blocks, captured
from minigpt2.device.cublaslt import WORKSPACE_BYTES
from minigpt2.device.filled_batch import rounded_up
from minigpt2.device.fused_loss import ALIGNED, CHUNK
from minigpt2.device.side_stream import pays
from minigpt2.memory import peak_memory
from minigpt2.model.config import GPT2Config
from minigpt2.planning.memory_and_flops import (
    MemoryOptions,
    MicroBatch,
    PartsOf,
    adapter_rows,
    memory,
    trained_numbers,
)
from minigpt2.training.precision import Precision, compute_dtype

SINGLE = 4  # bytes of a float32
SUMS = 256  # blocks of threads, at most, that sum γ's and β's gradients


def rows_kept(config: GPT2Config, rows: int, options: MemoryOptions, size: int) -> int:
    """Return how many rows of C of each row's 16 a block keeps, in numbers of `size` bytes."""
    if options.recompute:
        return 6  # (51.3)
    saved = 6 * size * rows * config.n_embd * config.n_layer
    return 10 if saved > captured.MUCH and not options.dropout else 16  # (51.4), (51.2)


def kept_on_device(config: GPT2Config, rows: int, options: MemoryOptions, size: int) -> int:
    """Return the bytes that one block keeps for its backward pass, in numbers of `size` bytes."""
    arrays, row = rows_kept(config, rows, options, size), size * config.n_embd
    statistics = 4 * SINGLE if arrays == 16 else 0
    narrow = 0 if options.recompute else size * adapter_rows(rows, options)  # (49.15)
    masks = 2 * SINGLE * config.n_embd if options.dropout else 0  # in float32
    of_a_row = arrays * row + SINGLE * config.n_head + statistics + masks  # (51.2) to (51.4)
    return rows * of_a_row + narrow


def recomputed_on_device(config: GPT2Config, rows: int, options: MemoryOptions, size: int) -> int:
    """Return the bytes that a block recomputes in its backward pass."""
    lacking = 15 - rows_kept(config, rows, options, size)
    narrow = size * adapter_rows(rows, options) if options.recompute else 0  # (49.15)
    return rows * (lacking * size * config.n_embd + 16) + narrow if lacking > 0 else 0  # (51.4)


def loss_on_device(config: GPT2Config, batch: MicroBatch, size: int) -> int:
    """Return the bytes that the loss allocates."""
    c, width = config.n_embd, -(-config.vocab_size // ALIGNED) * ALIGNED  # W
    most = max(1, CHUNK // width)
    chunks = max(1, -(-batch.supervised // most))  # of nearly one size
    chunk = -(-batch.supervised // chunks)  # B
    return size * (3 * batch.rows * c + batch.supervised * c + chunk * (c + width))  # (51.5)


def ds_on_device(config: GPT2Config, rows: int, size: int) -> int:
    """Return the bytes of the gradients of a block's scores, where a GPU stores them."""
    if size == SINGLE or attention_blocks.are_small(rows, config.n_head):
        return 0
    tiles = ceil(min(rows, config.n_positions) / attention_blocks.TILE)
    slabs = ceil(rows / attention_blocks.SLAB_QUERIES) * (tiles + 3) // 2
    return size * attention_blocks.SLAB * config.n_head * rounded_up(slabs)  # (51.6)


def backward_on_device(
    config: GPT2Config, batch: MicroBatch, options: MemoryOptions, size: int
) -> int:
    """Return the bytes that a block's backward pass allocates."""
    c, arrays = config.n_embd, 10 if size == SINGLE else 8
    if options.dropout and size < SINGLE:
        return (10 * SINGLE + 3 * size) * batch.rows * c  # (51.8)
    besides = max(2 * SINGLE * min(batch.rows, SUMS) * c, ds_on_device(config, batch.rows, size))
    return arrays * size * batch.rows * c + besides  # (51.7)


def memory_on_device(
    config: GPT2Config, batch: MicroBatch, options: MemoryOptions, precision: Precision
) -> dict[str, int]:
    """Return the bytes of every part at the peak of training on a GPU.

    Raises UserError if the package that brings bfloat16 is not installed.
    """
    size, lora = compute_dtype(precision)(0).nbytes, options.lora
    trained = trained_numbers(config, lora)
    weights = config.n_parameters + (trained if lora else 0)  # (51.1), (49.14)
    batch = batch if options.dropout else filled_up(batch)
    again = recomputed_on_device(config, batch.rows, options, size)
    backward = backward_on_device(config, batch, options, size)
    work = max(loss_on_device(config, batch, size) - again, backward)  # (51.9)
    blocks = config.n_layer * kept_on_device(config, batch.rows, options, size)
    copy = {"copy": size * weights} if size < SINGLE else {}
    return {
        "weights": SINGLE * weights,
        **copy,  # (51.1)
        "gradients": SINGLE * trained,
        "moments": 2 * SINGLE * trained,
        "activations": blocks + again,  # (51.9)
        "workspace": max(0, work),
        "products": WORKSPACE_BYTES * (1 + pays(batch.rows, size)),
    }


def filled_up(batch: MicroBatch) -> MicroBatch:
    """Return the size of a batch that is filled up by at least one row."""
    if not batch.rows:
        return batch
    return MicroBatch(rounded_up(batch.rows + 1), rounded_up(batch.supervised))


def parts_counter(device: str, precision: Precision) -> PartsOf:
    """Return what counts the memory of a micro-batch on a device; here with this program's own."""
    if device == "cuda":
        return partial(memory_on_device, precision=precision)
    return partial(memory, program=peak_memory() or 0)
