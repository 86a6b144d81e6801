"""The least time of a step on a GPU: what no program that computes the same can fall below.

Each part must do its operations and move its bytes; it takes the longer of the two.  A step of N
rows, of which R are read by the loss in M triples, S visible pairs, P parameters, numbers of s
bytes (2 or 4):

products      their operations, or each matrix read or written once; gradients of weights in float32
attention     4·C operations a pair and layer forward, 10·C backward, which computes the scores
              again (49.10); q, k, v, o and their gradients once
layer norm    forward x read, y written; backward dy, x and the gradient that passes by read, dx
              written: 2 and 4 rows of C numbers
GELU          forward h read, y written; backward dy and h read, dh written: 2 and 3 rows of 4·C
cross-entropy logits read, and their gradient written in their place: 2·M·V numbers
AdamW         θ, g, m, v read, θ, m, v written, and the 16-bit copy: 28 + (2) bytes a parameter;
              the norm reads the gradient once more: 4
embedding     rows gathered, and their gradients read: 3·N·C numbers

Biases and residuals are added where the rows are anyway, so they cost nothing here.  The last
block computes, behind its attention, only the R rows that the loss reads.
"""

from typing import NamedTuple

from tests.benchmarks.work import (
    layer_products,
    operations,
    rows_read,
    supervised_triples,
    three_forms,
)

MASTER = 4  # bytes of a gradient, a weight, a moment


class Rates(NamedTuple):
    """What a card does in a second."""

    operations: float  # of a large matrix product in the job's precision
    memory: float  # bytes


class Load(NamedTuple):
    """Operations and bytes that have to be, so many times a step."""

    operations: float
    bytes: float
    times: float = 1

    def seconds(self, rates):
        """The least time."""
        return self.times * max(self.operations / rates.operations, self.bytes / rates.memory)


def products_of(counts, size):
    """The loads of some products."""
    loads = []
    for product, times in counts.items():
        written = MASTER if product.form == "dw" else size
        rows, columns = product.result
        elements = product.left[0] * product.left[1] + product.right[0] * product.right[1]
        moved = size * elements + written * rows * columns
        loads.append(Load(product.operations, moved, times))
    return loads


def loads_of(config, batch, size):
    """part -> its loads in a step; `size` is that of a number, in bytes."""
    n, c, layers = len(batch.ids), config.n_embd, config.n_layer
    read, triples = rows_read(batch), supervised_triples(batch)
    behind = (layers - 1) * n + read  # rows of all blocks behind their attention
    normalised = layers * n + behind + read  # rows of all normalisations
    counted, parameters = operations(config, batch), config.n_parameters
    head = dict.fromkeys(three_forms("wte", triples, c, config.vocab_size, tied=True), 1)
    forward, backward = (counted[f"attention, {way}"] / layers for way in ("forward", "backward"))
    row, copy = size * c, size if size < MASTER else 0
    return {
        "products of the blocks": products_of(layer_products(config, batch), size),
        "products with the vocabulary": products_of(head, size),
        "attention, forward": [Load(forward, 4 * n * row, layers)],
        "attention, backward": [Load(backward, 8 * n * row, layers)],
        "layer norm": [Load(0, (2 + 4) * row * normalised)],
        "GELU": [Load(0, (2 + 3) * 4 * row * behind)],
        "cross-entropy": [Load(0, 2 * size * triples * config.vocab_size)],
        "AdamW and norm": [Load(0, (28 + copy + MASTER) * parameters)],
        "embedding": [Load(0, 3 * n * row)],
    }


def floors_of(config, batch, size, rates):
    """part -> the least seconds of a step."""
    loads = loads_of(config, batch, size)
    return {part: sum(load.seconds(rates) for load in own) for part, own in loads.items()}
