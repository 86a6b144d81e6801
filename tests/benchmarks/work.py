"""What one step has to do: its batch, the operations in it, and the matrix products that do them.

A step here is one micro-batch, forward and backward, and one update.  An addition and a
multiplication are one operation each.  What is done element by element, and the exponentials, are
not counted: they are few beside the products, though they take their time.
"""

import mmap
from collections import Counter
from math import prod
from typing import NamedTuple

import numpy as np

from minigpt2.backend import array_module
from minigpt2.data.forest import Segment, lay_out
from minigpt2.device.products import matmul
from minigpt2.model.config import OFFICIAL, TINY
from minigpt2.ops.cross_entropy import CHUNK_BYTES

MODELS = {"tiny": TINY, **OFFICIAL}
FLOAT32 = np.dtype(np.float32).itemsize


def make_batch(config, rows, segment, supervised, preamble, rng):
    """A forest of random tokens with exactly `rows` rows.

    Its examples have `segment` rows each (the last one what is left), of which the last ones, a
    share `supervised`, predict a target.  With a preamble that many rows come first, supervise
    nothing, and every example goes on from them.
    """
    own = rows - preamble
    lengths = [segment] * (own // segment) + [own % segment] * (own % segment > 0)
    examples = []
    for length in lengths:
        targets = min(length, max(1, round(supervised * length)))
        ids = rng.integers(config.vocab_size, size=length + 1).tolist()  # The last has no row
        examples.append(Segment(ids, [0.0] * (length + 1 - targets) + [1.0] * targets))
    if not preamble:
        return lay_out(examples)
    ids = rng.integers(config.vocab_size, size=preamble).tolist()
    return lay_out([Segment(ids, [0.0] * preamble, examples)])


def visible_pairs(batch):
    """How many pairs of rows j <= i < end[j] there are: row j is seen by end[j] - j rows."""
    return int((batch.end - np.arange(len(batch.end))).sum())


def supervised_triples(batch):
    """How many triples the projection to the vocabulary is made for."""
    return int(np.count_nonzero(batch.weights))


def rows_read(batch):
    """How many rows the loss reads: the last block makes no others behind its attention."""
    return len(np.unique(batch.rows))


def operations(config, batch):
    """The operations of a step, by part.  With N rows, M supervised triples in R rows, S visible
    pairs:

    linear products    12·L·C² weights meet N rows, 9·C² of the last block R rows: 2 operations
                       each forward, 4 backward
    attention          L·H heads, S pairs: 4·D operations forward, 10·D backward (scores again)
    loss               V·C weights meet M rows: 6 operations each, forward and backward at once
    """
    c, layers = config.n_embd, config.n_layer
    met = 12 * layers * c * c * len(batch.ids) - 9 * c * c * (len(batch.ids) - rows_read(batch))
    seen = layers * c * visible_pairs(batch)  # H·D is C
    return {
        "linear products, forward": 2 * met,
        "linear products, backward": 4 * met,
        "attention, forward": 4 * seen,
        "attention, backward": 10 * seen,
        "loss with projection": 6 * config.vocab_size * c * supervised_triples(batch),
    }


class Product(NamedTuple):
    """A matrix product: the two matrices as they are stored, and which is read transposed."""

    layer: str
    form: str
    left: tuple[int, int]
    right: tuple[int, int]
    turned: str = ""  # "left", "right" or neither

    @property
    def result(self):
        """The shape of the result."""
        rows, columns = self.left[self.turned == "left"], self.right[self.turned != "right"]
        return rows, columns

    @property
    def operations(self):
        """One multiplication and one addition for each element of the result and inner index."""
        return 2 * prod(self.result) * self.left[self.turned != "left"]

    def run(self, left, right, out):
        """Multiply."""
        left = left.T if self.turned == "left" else left
        right = right.T if self.turned == "right" else right
        return np.matmul(left, right, out=out)


FORMS = ("forward", "dx", "dw")


def three_forms(layer, rows, inner, outer, tied=False):
    """The products of a layer, x W forward, dy Wᵀ and xᵀ dy; a tied W is stored transposed."""
    x, dy, w = (rows, inner), (rows, outer), (inner, outer)
    if tied:
        w = w[::-1]
        products = ((x, w, "right"), (dy, w, ""), (dy, x, "left"))
    else:
        products = ((x, w, ""), (dy, w, "right"), (x, dy, "left"))
    pairs = zip(FORMS, products, strict=True)
    return [Product(layer, form, *operands) for form, operands in pairs]


def layer_products(config, batch):
    """How often a step makes each product of its blocks' linear layers."""
    n, c, counts = len(batch.ids), config.n_embd, Counter()
    counts.update(dict.fromkeys(three_forms("c_attn", n, c, 3 * c), config.n_layer))
    behind = {"attn.c_proj": (c, c), "c_fc": (c, 4 * c), "mlp.c_proj": (4 * c, c)}
    for name, sizes in behind.items():
        for rows, count in ((n, config.n_layer - 1), (rows_read(batch), 1)):
            counts.update(dict.fromkeys(three_forms(name, rows, *sizes), count))
    return counts


def matrix_products(config, batch, columns=None):
    """How often a step makes each of its products of two matrices.

    These are the linear products and the projection to the vocabulary, a chunk of supervised rows
    at a time, with rows of `columns` logits (V unless a device has wider ones).  Attention's
    products are one small batch a head and belong to no layer: not here.
    """
    counts, columns = layer_products(config, batch), columns or config.vocab_size
    whole, left = divmod(supervised_triples(batch), CHUNK_BYTES // (config.vocab_size * FLOAT32))
    for rows, count in ((CHUNK_BYTES // (config.vocab_size * FLOAT32), whole), (left, 1)):
        if rows and count:
            projection = three_forms("wte", rows, config.n_embd, columns, tied=True)
            counts.update(dict.fromkeys(projection, count))
    return dict(counts)


def mapped(size, rng=None):
    """An array of float32 in memory of its own, all of it touched; random numbers, or zeros.

    Not from the allocator: it would keep the space, and the steps would find it ready.
    """
    memory = mmap.mmap(-1, max(1, size) * FLOAT32)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # as NumPy asks for its own large arrays
        memory.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(memory, np.float32)
    array[:] = 0
    for start in range(0, size if rng else 0, 1 << 16):
        part = array[start : start + (1 << 16)]
        part[:] = rng.standard_normal(len(part), np.float32)
    return array


class Matrices:
    """Memory for the matrices of any of some products, made and touched once."""

    def __init__(self, products, rng):
        self.operands = mapped(max(prod(p.left) + prod(p.right) for p in products), rng)
        self.out = mapped(max(prod(p.result) for p in products))

    def move(self, library, dtype, products):
        """Take them to a device, in a type of numbers; gradients of weights stay in float32."""
        largest = max((prod(p.result) for p in products if p.form == "dw"), default=1)
        self.operands, self.out = (library.asarray(a, dtype) for a in (self.operands, self.out))
        self.gradient = library.zeros(largest, np.float32)

    def multiply(self, product):
        """Make one product."""
        split, stop = prod(product.left), prod(product.left) + prod(product.right)
        left = self.operands[:split].reshape(product.left)
        right = self.operands[split:stop].reshape(product.right)
        on_device = array_module(left) is not np
        out = self.gradient if on_device and product.form == "dw" else self.out
        out = out[: prod(product.result)].reshape(product.result)
        if on_device:
            turned = {"transpose_x": product.turned == "left"}
            matmul(left, right, **turned, transpose_w=product.turned == "right", out=out)
        else:
            product.run(left, right, out)
