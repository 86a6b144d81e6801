"""Key/value cache: what earlier tokens said is kept, so a new token costs one row.

Why
    No row sees a later one (8.1), so the keys and values of a row are final once
    they are computed.  Whoever keeps them need not compute old rows again when a
    sequence grows: instead of all rows for every token, one row for every token.

Definition
    B sequences that begin alike share a trunk of P rows, the root of their
    forest; behind it each has a branch of its own.  The keys and values of both
    stand in arrays made once, with room for all rows that may come: the trunk's
    once, the branches' side by side.  One sequence alone needs no trunk.
    Row i of branch b sees the trunk and its own branch up to itself:
    visible in branch b  ⟺  j ≤ i                                  (29.1)

One softmax over two places
    (8.3) and (8.4) over the trunk's keys and the branch's together: with the
    scores s of (8.2) and m the largest of both,
    m  = max( maxⱼ sᵢⱼ of the trunk, maxⱼ sᵢⱼ of the branch )      (29.2)
    eᵢⱼ = exp(sᵢⱼ − m)                                             (29.3)
    oᵢ = (Σ eᵢⱼ vⱼ over the trunk + Σ eᵢⱼ vⱼ over the branch) / (both Σ eᵢⱼ)   (29.4)
    exp(−m) cancels, as in (8.10): the result is that of (8.4) for any m, and with
    this m no exponential overflows.

Read it
    A sequence that grows through the cache gives the same numbers, to rounding,
    as the whole of it computed again.

Cost
    2·(12·L·C² + V·C) operations for a new row, where V·C is the projection to
    logits, and 4·L·C for each row that it sees.  One sequence reads every weight once
    for each token, 4·P bytes for P parameters in float32: memory sets the speed, not arithmetic.
    Keeps 2·L·C numbers a row.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from math import sqrt
from operator import add
from typing import Any

import numpy as np

from minigpt2.backend import Array, array_module
from minigpt2.model.batch import Batch
from minigpt2.model.gpt2 import gpt2, rows_read
from minigpt2.model.parameters import Parameters
from minigpt2.ops.attention import attention, split_heads


class Cache:
    """Keys and values of sequences that share a trunk: arrays made once, filled row by row."""

    def __init__(self, parameters: Parameters, sequences: int, trunk: int, room: int):
        config = parameters.config
        xp = array_module(parameters.flat)
        head, dtype = config.n_embd // config.n_head, parameters.flat.dtype
        layers = config.n_layer
        self.parameters = parameters
        self.trunk = xp.empty((layers, 2, config.n_head, trunk, head), dtype)  # (L, 2, H, P, D)
        shape = (layers, 2, sequences, config.n_head, room, head)
        self.branches = xp.zeros(shape, dtype)  # (L, 2, B, H, T, D), finite where unseen
        self.lengths = np.zeros(sequences, np.int64)  # (B,) rows of each branch

    @property
    def room(self) -> int:
        """How many rows the longest branch can still take."""
        return self.branches.shape[4] - int(self.lengths.max(initial=0))

    def keep(self, chosen: Sequence[int]) -> None:
        """Drop all branches but the chosen ones."""
        self.branches = self.branches[:, :, chosen]
        self.lengths = self.lengths[chosen]

    def begin(self, prompts: Sequence[Sequence[int]], batch: Batch) -> Array:
        """Fill the empty cache from a forest of prompts below one root; return their last h (B, C).

        The root has the trunk's rows; the rest of each prompt is one segment, in order, and its
        triple names its last row.
        """
        p = self.trunk.shape[3]
        self.lengths[:] = [len(prompt) - p for prompt in prompts]
        stops = p + np.cumsum(self.lengths)

        def through(layer: int) -> Any:
            def attend(qkv: Array, end: Array, n_head: int, *how: Any) -> tuple[Array, Any]:
                kv = split_heads(qkv, 3, n_head)[1:]  # (2, H, N, D)
                self.trunk[layer] = kv[:, :, :p]
                for b, (stop, n) in enumerate(zip(stops, self.lengths, strict=True)):
                    self.branches[layer, :, b, :, :n] = kv[:, :, stop - n : stop]
                return attention(qkv, end, n_head, *how)

            return attend

        read, places = rows_read(batch)
        h = self.run(batch, through, read)  # (R, C)
        return h[array_module(h).asarray(places)]  # (B, C)

    def extend(self, ids: Array) -> Array:
        """Let every branch grow by the tokens ids (B, n); return their rows h (B, n, C)."""
        b, n = ids.shape
        if n > self.room:
            raise ValueError(f"{n} more rows do not fit: there is room for {self.room}")
        new = self.lengths[:, None] + np.arange(n)  # (B, n) the new rows' places in their branches
        positions = (self.trunk.shape[3] + new).ravel()
        nothing = np.empty(0, np.int64)
        batch = Batch(ids.ravel(), positions, nothing, nothing, nothing, nothing)
        h = self.run(batch, partial(self.grown, new, self.added_to_scores(new)))
        self.lengths += n
        return h.reshape(b, n, -1)

    def run(self, batch: Batch, through: Any, read: Array | None = None) -> Array:
        """Run the model with another attention in each layer; return h (N, C), or rows of it."""
        return gpt2(self.parameters, batch, backward=False, attend=through, read=read)[0]

    def added_to_scores(self, new: Array) -> Array:
        """Return what makes new rows (B, n) see what they may of their branches (B, 1, n, S).

        That is 0 for a visible pair and −∞ for another.
        """
        xp, dtype = array_module(self.branches), self.branches.dtype
        visible = np.arange(new.max() + 1) <= new[:, None, :, None]  # (B, 1, n, S)  (29.1)
        return xp.asarray(np.where(visible, 0, -np.inf).astype(dtype))

    def grown(self, new: Array, added: Array, layer: int) -> Any:
        """Return a layer's attention of new rows (B, n), over all that the cache holds."""
        trunk, branches, (b, n) = self.trunk[layer], self.branches[layer], new.shape

        def attend(qkv: Array, end: Array, n_head: int, *how: Any) -> tuple[Array, None]:
            xp, features = array_module(qkv), qkv.shape[1] // 3
            heads = qkv.reshape(b, n, 3, n_head, features // n_head).transpose(2, 0, 3, 1, 4)
            q = heads[0] / sqrt(features // n_head)  # (B, H, n, D)  (8.2)
            if b == 1:  # they stand together
                branches[..., new[0, 0] : new[0, -1] + 1, :] = heads[1:]
            else:
                which = xp.asarray(np.arange(b)[:, None])  # (B, 1)
                branches[:, which, :, xp.asarray(new)] = heads[1:].transpose(1, 3, 0, 2, 4)
            k, v = branches[..., : added.shape[-1], :]  # (B, H, S, D)
            s = q @ k.transpose(0, 1, 3, 2)  # (B, H, n, S)  (8.2)
            s += added  # (29.1)
            places = [(s, lambda e: e @ v)]
            if trunk.shape[2]:
                s = for_all(q, lambda q: q @ trunk[0].transpose(0, 2, 1))  # (B, H, n, P)  (8.2)
                places.append((s, lambda e: for_all(e, lambda e: e @ trunk[1])))
            o = one_softmax(places)  # (B, H, n, D)
            return o.transpose(0, 2, 1, 3).reshape(b * n, features), None

        return attend


def for_all(x: Array, product: Callable[[Array], Array]) -> Array:
    """Apply to x (B, H, n, X) a product of (H, B·n, X) with what all branches share."""
    b, n_head, n, _ = x.shape
    y = product(x.transpose(1, 0, 2, 3).reshape(n_head, b * n, -1))  # (H, B*n, Y)
    return y.reshape(n_head, b, n, -1).transpose(1, 0, 2, 3)  # (B, H, n, Y)


def one_softmax(places: list[tuple[Array, Callable[[Array], Array]]]) -> Array:
    """Return o (B, H, n, D) for scores in one place or in several.

    A place has its scores s (B, H, n, S) and a function from exponentials to Σ e v (B, H, n, D).
    """
    xp = array_module(places[0][0])
    m = reduce(xp.maximum, [s.max(-1, keepdims=True) for s, _ in places])  # (B, H, n, 1)  (29.2)
    each = [(xp.exp(s - m), weigh) for s, weigh in places]  # (29.3)
    a = reduce(add, [weigh(e) for e, weigh in each])  # (B, H, n, D)
    return a / reduce(add, [e.sum(-1, keepdims=True) for e, _ in each])  # (29.4)
