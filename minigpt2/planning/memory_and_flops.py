"""Memory and operations: the memory and the operations of a step, counted before it is taken.

Definition: memory, in numbers (4 bytes each), for a micro-batch of N rows with M supervised triples
    The state, with P parameters: weights, gradients, and AdamW's m and v,
    P + P + 2·P                                                    (49.1)
    A block keeps for its backward pass: x̂ of two normalisations, the inputs of four linear maps
    (1 + 1 + 1 + 4), q, k and v (3), and the slope of GELU (4), together 16 rows of C; a logarithm
    for each head, and r of the normalisations.  The last block counts like the others, although
    after attention it keeps only the rows of triples:
    keptₗ = 16·N·C + N·H + 2·N   (with dropout 2·N·C more)         (49.2)
    With recomputation it keeps the input of each branch (2), q, k and v (3), and o,
    keptₗ = 6·N·C + N·H   (with dropout 2·N·C more)                (49.3)
    and recomputes the rest of (49.2) for one block at a time:
    again = 12·N·C + 2·N   (0 without recomputation)               (49.4)
    The loss: four arrays of hidden rows, one row for each triple, one chunk of B rows with their
    logits, and the part of the table's gradient that is added at once (TABLE_BYTES of
    ops/cross_entropy; 0 without triples):
    loss = 4·N·C + M·C + B·(V + C) + added                         (49.5)
    A block's backward pass: the gradients of g and u (4 + 4), when g is freed already (−4), and of
    y (1), three rows of C of the model, and two gradients of its largest weights
    backward = 8·N·C + 8·C²                                        (49.6)
    The loss is computed while every block keeps its activations, and so is the last block's
    backward pass.  The two do not overlap, so the peak is
    peak = 4·P + Σₗ keptₗ + max(loss, again + backward)                    (49.7)
    and in addition the program itself, its libraries and code; one piece of a checkpoint, which is
    written while the next step is computed, from where the arrays are; and the workspace of matrix
    products: for every thread OpenBLAS copies a strip of the left factor, 384 of its columns (its
    constant for float32 on processors of today) and at most about 18,000 of its rows, unless the
    result is too narrow to use the strip again, up to 448 columns (measured).  The left factor with
    most rows has those of the batch, or, in the gradient of the table, V:
    products = 384 · min(N, 18,000) per thread, with max(N, V) in place of N if C > 448  (49.8)
    and M > 0.

Derivation: operations of a step over packed sequences of length T, N rows in all
    A block has 12·C² weights, and each takes 2 operations a row forward and 4 backward.  In the
    last block 9·C² of them see only the rows of triples, M if no two triples share one:
    72·L·C²·N − 54·C²·(N − M)                                      (49.9)
    A row attends to (T + 1)/2 rows on average.  Attention takes 4·C operations a pair forward and
    10·C backward, which recomputes the scores:
    14·L·C·N·(T + 1)/2  ≈  7·L·C·T·N                               (49.10)
    The projection, for M triples:
    6·V·C·M                                                        (49.11)
    Recomputation of u takes one product of 8·C² operations for each row that (49.9) counts:
    8·L·C²·N − 8·C²·(N − M)                                        (49.12)
    For one sequence, N = T, with every row supervised, (49.9) is linear in T and (49.10)
    quadratic.  They are equal where 72·C² = 7·C·(T + 1):
    T = 72·C/7 − 1 ≈ 10·C                                          (49.13)
    The forward pass alone, 24·C² = 4·C·(T + 1)/2, gives T ≈ 12·C.  The often quoted T ≈ 6·C is for
    an attention that also computes the pairs above the diagonal: 24·C² = 4·C·T.

With LoRA (chapter 11), where n layers of each block have adapters of rank r, Pₐ numbers in all
    Only the adapters have gradients and moments:
    P + Pₐ + Pₐ + 2·Pₐ                                             (49.14)
    A block keeps h of each, in addition to (49.2), and with recomputation to (49.4):
    n·r·N                                                          (49.15)
    There are no gradients of weights: 8·C² of (49.6) and what is added in (49.5) are 0.  Nor are
    there their products, a third of (49.9) and of (49.11); those of the adapters have 2 operations
    forward and 4 backward for each of their numbers and each row (but for h again, with
    recomputation):
    (72·L·C²·N − 54·C²·(N − M)) · 2/3 + 6·Pₐ·N                     (49.16)

Example: GPT-2 with 124,439,808 parameters, L = 12, C = 768, H = 12, and N = M = 1,000 rows
    The state (49.1) takes 4 · 124,439,808 numbers, 1.99 GB.  A block keeps 16,000 · 768 + 12,000 +
    2,000 numbers (49.2), all blocks together 0.59 GB; with recomputation 6,000 · 768 + 12,000
    (49.3), together 0.22 GB.
    >>> from minigpt2.model.config import OFFICIAL
    >>> gpt2, batch = OFFICIAL["gpt2"], MicroBatch(rows=1000, supervised=1000)
    >>> [kept_by_block(gpt2, 1000, MemoryOptions(recompute)) for recompute in (False, True)]
    [12302000, 4620000]

    The blocks' products take 72 · 12 · 768² · 1,000 operations (49.9), 510 billion; attention in
    sequences of T = 1,000 takes 14 · 12 · 768 · 1,000 · 500.5 (49.10), and the loss, with
    V = 50,257, 6 · 50,257 · 768 · 1,000 (49.11):
    >>> counts = operations(gpt2, batch, length=1000, recompute=False)
    >>> {part: round(count / 1e9) for part, count in counts.items()}
    {'products': 510, 'attention': 65, 'projection': 232}

Read it
    Up to GPT-2's context of 1,024 the quadratic term is the small one: with C = 768 the two are
    equal near 7,900 rows.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from minigpt2.model.adapters import LoRA
from minigpt2.model.config import GPT2Config
from minigpt2.ops.cross_entropy import CHUNK_BYTES, TABLE_BYTES
from minigpt2.parallel import cores
from minigpt2.tensor_writer import PIECE

NUMBER = 4  # bytes of a float32
PROGRAM = "program"
STRIP, TALLEST = 384, 18_000  # columns and rows that a thread of OpenBLAS copies
NARROW = 448  # columns of a result up to which it keeps no copy


class MicroBatch(NamedTuple):
    """A micro-batch by its size."""

    rows: int  # N
    supervised: int  # M


class MemoryOptions(NamedTuple):
    """The settings that change the activations that are kept."""

    recompute: bool = False
    dropout: bool = False
    lora: LoRA | None = None  # only adapters are trained


# What counts the bytes of every part at the peak: `memory`, or what does so on a GPU.
PartsOf = Callable[[GPT2Config, MicroBatch, MemoryOptions], dict[str, int]]


def kept_by_block(config: GPT2Config, rows: int, options: MemoryOptions) -> int:
    """Return the numbers that one block keeps for its backward pass."""
    c, h = config.n_embd, config.n_head
    masks = 2 * rows * c if options.dropout else 0
    if options.recompute:
        return 6 * rows * c + rows * h + masks  # (49.3)
    return 16 * rows * c + rows * h + 2 * rows + masks + adapter_rows(rows, options)  # (49.2)


def adapter_rows(rows: int, options: MemoryOptions) -> int:
    """Return the numbers of h that the adapters of a block keep."""
    return rows * options.lora.rank * len(options.lora.layers) if options.lora else 0  # (49.15)


def trained_numbers(config: GPT2Config, lora: LoRA | None) -> int:
    """Return how many numbers are trained."""
    return lora.n_parameters(config) if lora else config.n_parameters


def recomputed(config: GPT2Config, rows: int, options: MemoryOptions) -> int:
    """Return the numbers that a block recomputes in its backward pass."""
    if not options.recompute:
        return 0  # (49.4)
    return 12 * rows * config.n_embd + 2 * rows + adapter_rows(rows, options)  # (49.4)


def activations(config: GPT2Config, rows: int, options: MemoryOptions) -> int:
    """Return how many numbers all blocks keep while one of them goes backward."""
    blocks = config.n_layer * kept_by_block(config, rows, options)
    return blocks + recomputed(config, rows, options)  # (49.7)


def chunk_of(config: GPT2Config) -> int:
    """Return the most triples for which the loss computes logits at once."""
    return max(1, CHUNK_BYTES // (NUMBER * config.vocab_size))


def loss_workspace(config: GPT2Config, batch: MicroBatch, lora: LoRA | None = None) -> int:
    """Return the numbers that the loss allocates."""
    c, v = config.n_embd, config.vocab_size
    chunk = min(batch.supervised, chunk_of(config))  # B
    added = min(TABLE_BYTES // NUMBER, v * c) if batch.supervised and not lora else 0
    return 4 * batch.rows * c + batch.supervised * c + chunk * (v + c) + added  # (49.5)


def backward_workspace(config: GPT2Config, batch: MicroBatch, lora: LoRA | None = None) -> int:
    """Return the numbers that a block's backward pass allocates."""
    gradients = 0 if lora else 8 * config.n_embd**2
    return 8 * batch.rows * config.n_embd + gradients  # (49.6)


def strips(config: GPT2Config, batch: MicroBatch) -> int:
    """Return the numbers that the threads of OpenBLAS copy for a product."""
    tables = config.vocab_size if config.n_embd > NARROW and batch.supervised else 0
    return cores() * STRIP * min(max(batch.rows, tables), TALLEST)  # (49.8)


def memory(
    config: GPT2Config, batch: MicroBatch, options: MemoryOptions, program: int = 0
) -> dict[str, int]:
    """Return the bytes of every part at the peak of training; `program` is passed through."""
    p, lora = config.n_parameters, options.lora
    trained = trained_numbers(config, lora)
    again = recomputed(config, batch.rows, options)
    loss = loss_workspace(config, batch, lora)
    work = max(loss - again, backward_workspace(config, batch, lora))  # (49.7)
    parts = {
        "weights": p + (trained if lora else 0),  # (49.1), (49.14)
        "gradients": trained,
        "moments": 2 * trained,
        "activations": activations(config, batch.rows, options),
        "workspace": max(0, work),
        "products": strips(config, batch),
        "checkpoint": PIECE,
    }
    return {name: NUMBER * numbers for name, numbers in parts.items()} | {PROGRAM: program}


def state_bytes(config: GPT2Config, lora: LoRA | None = None) -> int:
    """Return the bytes of the weights, the gradients and the moments."""
    if lora:
        return NUMBER * (config.n_parameters + 4 * lora.n_parameters(config))  # (49.14)
    return 4 * NUMBER * config.n_parameters  # (49.1)


def peak(parts: Mapping[str, int]) -> int:
    """Return the bytes of all parts together."""
    return sum(parts.values())


def operations(
    config: GPT2Config,
    batch: MicroBatch,
    length: float,
    recompute: bool,
    lora: LoRA | None = None,
) -> dict[str, float]:
    """Return the operations of one micro-batch, in sequences of this length, by part."""
    c, layers = config.n_embd, config.n_layer
    unread = max(0, batch.rows - batch.supervised)
    products = 72 * layers * c * c * batch.rows - 54 * c * c * unread  # (49.9)
    if lora:
        narrow = 6 * batch.rows * lora.n_parameters(config)
        products = products * 2 // 3 + narrow  # (49.16)
    if recompute:
        products += 8 * c * c * (layers * batch.rows - unread)  # (49.12)
    pairs = 14 * layers * c * batch.rows * (length + 1) / 2  # (49.10)
    return {
        "products": products,
        "attention": pairs,
        "projection": (4 if lora else 6) * config.vocab_size * c * batch.supervised,  # (49.11)
    }


def crossing(config: GPT2Config) -> float:
    """Return the length at which attention takes as many operations as the blocks' products."""
    return 72 * config.n_embd / 7 - 1  # (49.13)
