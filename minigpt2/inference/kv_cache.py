"""Key/value cache: keys and values of earlier tokens are stored, so a new token costs one row.

Why
    No row sees a later one (8.1), so the keys and values of a row never change
    once they are computed.  With them stored, a sequence grows by one row a
    token; without them every token would compute all rows again.

Definition
    B sequences that begin alike share a prefix of S rows, the root of their
    forest; after it each has a suffix of its own.  (vLLM and SGLang share prefixes
    in the same way.)  The keys and values of the prefix are stored once, those of
    the suffixes side by side, in arrays with free rows for the tokens to come.  One
    sequence alone needs no prefix.  A step appends n rows to every suffix; the
    longest then has K.
    Row i of a suffix sees all of the prefix, and of its own suffix
    row j  ⟺  j ≤ i                                                (30.1)

One softmax over two places
    (8.3) and (8.4) run over the keys of the prefix and of the suffix together:
    with the scores s of (8.2) and m the largest of both,
    m  = max( maxⱼ sᵢⱼ of the prefix, maxⱼ sᵢⱼ of the suffix )     (30.2)
    eᵢⱼ = exp(sᵢⱼ − m)                                             (30.3)
    oᵢ = (Σ eᵢⱼ vⱼ of the prefix + Σ eᵢⱼ vⱼ of the suffix) / (both Σ eᵢⱼ)   (30.4)
    The factor exp(−m) cancels, as in (8.10): any m gives the o of (8.4), and
    with this m no exponential overflows.

Split over the keys
    A GPU computes one row faster if several of its processors share the keys.  The keys
    of prefix and suffix, in a row, are cut into splits of equal length.  Split z sums by
    itself; its j run over its own keys only:
    m_z = maxⱼ sᵢⱼ                                                 (30.5)
    ℓ_z = Σⱼ exp(sᵢⱼ − m_z)                                        (30.6)
    a_z = Σⱼ exp(sᵢⱼ − m_z) vⱼ                                     (30.7)
    With the weights
    w_z = exp(m_z − m)                                             (30.8)
    where m is the largest m_z, w_z exp(sᵢⱼ − m_z) is the eᵢⱼ of (30.3), so (30.4) becomes
    oᵢ = Σ_z w_z a_z / Σ_z w_z ℓ_z                                 (30.9)

Example: scores ln 1 and ln 2 in the prefix, ln 5 and ln 8 in the suffix
    m = ln 8, so e is 1/8, 2/8 and 5/8, 1.  Their sum is 2, and e / 2 is
    (1, 2, 5, 8) / 16: the softmax of the four scores in a row.
    >>> import numpy as np
    >>> (e_prefix, e_suffix), total = exponentials(np.log([1.0, 2.0]), np.log([5.0, 8.0]))
    >>> print(e_prefix.round(6), e_suffix.round(6), total.round(6))
    [0.125 0.25 ] [0.625 1.   ] [2.]

    With values 9 and 6 in the prefix, 3 and 0 in the suffix, (30.4) is 36 / 16:
    >>> print((e_prefix @ [9.0, 6.0] + e_suffix @ [3.0, 0.0]) / total)
    [2.25]

    With the prefix and the suffix as splits, m_z is ln 2 and ln 8 by (30.5), ℓ_z 3/2 and
    13/8 by (30.6), a_z 21/2 and 15/8 by (30.7).  The weights (30.8) are 1/4 and 1:
    >>> print((10.5 / 4 + 1.875) / (1.5 / 4 + 1.625))  # (30.9)
    2.25

Read it
    A sequence that grows through the cache gives the same numbers, to rounding,
    as the whole of it computed again.

Cost
    2·(12·L·C² + V·C) operations for a new row, where V·C is the projection to
    logits, and 4·L·C for each row that it sees.  One sequence reads every weight once
    for each token, 4·P bytes for P parameters in float32: memory sets the speed, not arithmetic.
    Keeps 2·L·C numbers a row.
"""

from collections.abc import Sequence
from functools import partial, reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np

from minigpt2.backend import Array, accumulation_dtype, array_module, fusible
from minigpt2.blas import single_threaded_blas
from minigpt2.data.forest import Segment, common_prefix, lay_out
from minigpt2.model.batch import Batch
from minigpt2.model.gpt2 import gpt2, rows_read
from minigpt2.model.parameters import Parameters
from minigpt2.ops.attention import attention, split_heads
from minigpt2.wording import plural


class NewRows(NamedTuple):
    """Rows that all sequences grow by: where they go, and what they see there."""

    places: Array  # (B, n) in their suffixes
    mask: Array  # (B, 1, n, K): 0 where a new row sees one of its suffix's K rows, −∞ elsewhere


class Cache:
    """Keys and values of sequences that share a prefix: arrays made once, filled row by row."""

    def __init__(self, parameters: Parameters, *, sequences: int, prefix: int, suffix: int):
        """Make the arrays: `prefix` shared rows, and `suffix` rows after it for each sequence."""
        config, xp = parameters.config, array_module(parameters.flat)
        n_layer, n_head, dtype = config.n_layer, config.n_head, parameters.flat.dtype
        width = config.n_embd // n_head
        shape = (n_layer, 2, sequences, n_head, suffix, width)
        self.parameters = parameters
        self.prefix = xp.empty((n_layer, 2, n_head, prefix, width), dtype)  # (L, 2, H, S, D)
        self.suffixes = xp.zeros(shape, dtype)  # (L, 2, B, H, suffix, D), finite where unseen
        self.lengths = np.zeros(sequences, np.int64)  # (B,) rows of each suffix

    @property
    def free(self) -> int:
        """How many more rows the longest suffix can take."""
        return self.suffixes.shape[4] - int(self.lengths.max(initial=0))

    def keep(self, chosen: Sequence[int]) -> None:
        """Drop all sequences but the chosen ones."""
        self.suffixes = self.suffixes[:, :, chosen]
        self.lengths = self.lengths[chosen]

    def prefill(self, prompts: Sequence[list[int]]) -> Array:
        """Fill the empty cache with prompts that share its prefix; return their last h (B, C)."""
        prefix = self.prefix.shape[3]
        self.lengths[:] = [len(prompt) - prefix for prompt in prompts]
        batch = prompt_forest(prompts, prefix)
        rows, places = rows_read(batch)
        attend = self.store_prompts
        h, _ = gpt2(self.parameters, batch, attend=attend, backward=False, rows=rows)  # (R, C)
        return h[array_module(h).asarray(places)]  # (B, C)

    def store_prompts(
        self, layer: int, qkv: Array, end: Array, n_head: int, **options: Any
    ) -> tuple[Array, Any]:
        """Store a layer's keys and values of the prompts; attend over their forest."""
        store_rows(qkv, self.prefix[layer], self.suffixes[layer], self.lengths)
        return attention(qkv, end, n_head, **options)

    def extend(self, ids: Array) -> Array:
        """Let every sequence grow by the tokens ids (B, n); return their rows h (B, n, C).

        Raises ValueError if fewer than n rows are free.
        """
        b, n = ids.shape
        if n > self.free:
            raise ValueError(f"{plural(n, 'more row')} do not fit; free rows: {self.free}")
        new = self.new_rows(n)
        positions = (self.prefix.shape[3] + new.places).ravel()  # (B*n,)
        nothing = np.empty(0, np.int64)
        batch = Batch(ids.ravel(), positions, nothing, nothing, nothing, nothing)
        attend = partial(self.append, new)
        h, _ = gpt2(self.parameters, batch, attend=attend, backward=False)  # (B*n, C)
        self.lengths += n
        return h.reshape(b, n, -1)  # (B, n, C)

    def new_rows(self, n: int) -> NewRows:
        """Return the n rows that follow each suffix."""
        xp, dtype = array_module(self.suffixes), accumulation_dtype(self.suffixes.dtype)
        places = self.lengths[:, None] + np.arange(n)  # (B, n)
        visible = np.arange(places.max() + 1) <= places[:, None, :, None]  # (B, 1, n, K)  (30.1)
        return NewRows(places, xp.asarray(np.where(visible, 0, -np.inf).astype(dtype)))

    def append(
        self,
        new: NewRows,
        layer: int,
        qkv: Array,
        end: Array,
        n_head: int,
        *,
        divisor: float,
        **dropout: Any,
    ) -> tuple[Array, None]:
        """Append a layer's keys and values of new rows; attend over all that it holds now."""
        (b, n), xp, features = new.places.shape, array_module(qkv), qkv.shape[1] // 3
        heads = qkv.reshape(b, n, 3, n_head, features // n_head).transpose(2, 0, 3, 1, 4)
        suffixes = self.suffixes[layer]  # (2, B, H, suffix, D)
        if b == 1:  # the new rows are adjacent
            suffixes[..., new.places[0, 0] : new.places[0, -1] + 1, :] = heads[1:]
        else:
            sequence = xp.asarray(np.arange(b)[:, None])  # (B, 1)
            suffixes[:, sequence, :, xp.asarray(new.places)] = heads[1:].transpose(1, 3, 0, 2, 4)
        grown = suffixes[..., : new.mask.shape[-1], :]  # (2, B, H, K, D)
        q, prefix, grown = (
            part.astype(new.mask.dtype, copy=False)
            for part in (heads[0], self.prefix[layer], grown)
        )
        q = q / divisor  # (B, H, n, D)  (8.2)
        o = attend_over(q, prefix, grown, new.mask).astype(qkv.dtype, copy=False)
        return o.transpose(0, 2, 1, 3).reshape(b * n, features), None


@fusible
def store_rows(qkv: Array, prefix: Array, suffixes: Array, lengths: Array) -> None:
    """Store the keys and values in qkv (N, 3C), whose rows follow each other in this order.

    First come those of the prefix (2, H, S, D), then `lengths` (B,) of each suffix (2, B, H, n, D).
    """
    kv = split_heads(qkv, 3, prefix.shape[1])[1:]  # (2, H, N, D)
    first = prefix.shape[2]
    prefix[...] = kv[:, :, :first]
    for b, n in enumerate(lengths.tolist()):
        suffixes[:, b, :, :n] = kv[:, :, first : first + n]
        first += n


@single_threaded_blas
def attend_over(q: Array, prefix: Array, suffixes: Array, mask: Array) -> Array:
    """Return o (B, H, n, D) of the queries q (B, H, n, D), which are divided by τ already.

    Keys and values are those of `prefix` (2, H, S, D), perhaps with S = 0, and of `suffixes`
    (2, B, H, K, D); mask (B, 1, n, K) is added to the scores of the suffixes.
    """
    (k_prefix, v_prefix), (k, v) = prefix, suffixes
    s = q @ k.transpose(0, 1, 3, 2)  # (B, H, n, K)  (8.2)
    s += mask  # (30.1)
    if not prefix.shape[2]:
        (e,), total = exponentials(s)
        return e @ v / total  # (B, H, n, D)  (30.4)
    s_prefix = multiply_shared(q, k_prefix.transpose(0, 2, 1))  # (B, H, n, S)  (8.2)
    (e, e_prefix), total = exponentials(s, s_prefix)
    return (e @ v + multiply_shared(e_prefix, v_prefix)) / total  # (B, H, n, D)  (30.4)


def exponentials(*scores: Array) -> tuple[list[Array], Array]:
    """Return e of the scores in each place, and the sum of all e (..., 1).

    The places' scores are (..., S), (..., K) and so on: only the last axis may differ.
    """
    xp = array_module(scores[0])
    m = reduce(xp.maximum, [s.max(-1, keepdims=True) for s in scores])  # (30.2)
    e = [xp.exp(s - m) for s in scores]  # (30.3)
    return e, reduce(add, [part.sum(-1, keepdims=True) for part in e])


def multiply_shared(x: Array, y: Array) -> Array:
    """Return x (B, H, n, I) @ y (H, I, J): one product of B·n rows a head, as y is shared."""
    b, n_head, n, inner = x.shape
    rows = x.transpose(1, 0, 2, 3).reshape(n_head, b * n, inner) @ y  # (H, B*n, J)
    return rows.reshape(n_head, b, n, -1).transpose(1, 0, 2, 3)  # (B, H, n, J)


def prompt_forest(prompts: Sequence[list[int]], prefix: int) -> Batch:
    """Lay prompts out, in order, below their first `prefix` tokens, which they share.

    Each has one triple, which names its last row: target 0, weight 1.  Raises ValueError if the
    prompts do not share these tokens.
    """
    if common_prefix(prompts) < prefix:
        raise ValueError(f"the prompts do not share their first {plural(prefix, 'token')}")
    rests = [prompt[prefix:] for prompt in prompts]
    children = [Segment([*rest, 0], [0.0] * len(rest) + [1.0]) for rest in rests]
    return lay_out([Segment(list(prompts[0][:prefix]), [0.0] * prefix, children)])
