"""Attention over the token forest: each token reads the tokens that lead up to it.

Why
    Every other op treats rows one by one; this one lets a token gather features
    from earlier tokens, as much from each as query and key agree.

    A batch is one row of tokens cut into a forest of segments.  A token sees its
    own segment up to itself, and the whole of every ancestor segment.  Segments
    are laid out depth first, so all that may read row j's segment follows it
    without a gap, and one integer a row says where that stops:
    row i sees row j  ⟺  j ≤ i < end[j]                      (8.1)
    One sequence is the special case end[j] = N.

    Each row brings to each head three vectors of D numbers, cut from one linear
    map of its features (23.1): a query q, what it looks for; a key k, what it is
    found by; a value v, what it hands over.  The H heads work side by side, each
    on its own D of the C features, so a token can read in H ways at once.
    q · k is a sum of D products.  If their factors are independent, with mean 0
    and variance 1, its variance is D; the division by √D in (8.2) brings it back
    to 1, where the softmax does not yet put everything on one key.

Definition, for one head of D features, with j over the rows that i sees
    sᵢⱼ = qᵢ · kⱼ / √D                                       (8.2)
    pᵢⱼ = exp(sᵢⱼ) / Σⱼ′ exp(sᵢⱼ′)                           (8.3)
    oᵢ  = Σⱼ zᵢⱼ pᵢⱼ vⱼ                                      (8.4)
    z are the keep factors of dropout (7.1), 1 where there is none.  The heads'
    outputs stand side by side in o.  (Vaswani et al. 2017, equation 1 and section
    3.2.)

Forward without the (N, N) matrix: the online softmax
    Go through the keys block by block.  For each row keep the largest score so
    far, m, and two sums taken relative to it, so that no exponential overflows:
    ℓ = Σⱼ exp(sᵢⱼ − m)  and  a = Σⱼ zᵢⱼ exp(sᵢⱼ − m) vⱼ.  A new block may raise m.
    From here to (8.9) maxⱼ and Σⱼ are over the keys of the new block alone:
    m′ = max(m, maxⱼ sᵢⱼ)                                    (8.5)
    Old terms were taken relative to m; exp(s − m′) = exp(s − m) exp(m − m′), so
    α  = exp(m − m′)                                         (8.6)
    eᵢⱼ = exp(sᵢⱼ − m′)                                      (8.7)
    ℓ′ = α ℓ + Σⱼ eᵢⱼ                                        (8.8)
    a′ = α a + Σⱼ zᵢⱼ eᵢⱼ vⱼ                                 (8.9)
    By induction ℓ and a are the two sums over all keys seen so far.  After the
    last block, the factor exp(−m) of both sums cancels in (8.3) and (8.4):
    oᵢ = a / ℓ                                               (8.10)
    One number a row is enough to find every probability again, the log-sum-exp
    λᵢ = m + ln ℓ = ln Σⱼ exp(sᵢⱼ)                           (8.11)
    pᵢⱼ = exp(sᵢⱼ − λᵢ)                                      (8.12)
    The block with the row itself comes first.  There each row sees at least
    itself, so m is finite from then on and −∞ − (−∞) never arises.
    (Milakov and Gimelshein 2018; Dao et al. 2022, algorithm 1.)

Derivation, writing dx for ∂ℒ/∂x
    oᵢ is linear in the values, and vⱼ feeds every row that sees j.  From (8.4):
    dvⱼ  = Σᵢ zᵢⱼ pᵢⱼ doᵢ                                    (8.13)
    dpᵢⱼ = zᵢⱼ (doᵢ · vⱼ)                                    (8.14)
    The softmax's Jacobian by way of λ.  From (8.11) and (8.12),
    ∂λᵢ/∂sᵢₖ = exp(sᵢₖ) / Σⱼ exp(sᵢⱼ) = pᵢₖ                  (8.15)
    and the chain rule on (8.12) with (8.15), δ being the Kronecker delta:
    ∂pᵢⱼ/∂sᵢₖ = pᵢⱼ (δⱼₖ − pᵢₖ)                              (8.16)
    Sum (8.16) over every pᵢⱼ that sᵢₖ feeds:
    dsᵢₖ = Σⱼ dpᵢⱼ pᵢⱼ (δⱼₖ − pᵢₖ) = pᵢₖ (dpᵢₖ − Dᵢ),  Dᵢ = Σⱼ pᵢⱼ dpᵢⱼ   (8.17)
    Dᵢ looks as if it needed a whole row of p and dp at once, a product over all
    pairs before the first ds.  Put (8.14) into it, and take doᵢ out of the sum:
    Dᵢ = Σⱼ pᵢⱼ zᵢⱼ (doᵢ · vⱼ) = doᵢ · Σⱼ zᵢⱼ pᵢⱼ vⱼ = doᵢ · oᵢ   (8.18)
    which is one inner product of two rows that are at hand, so ds can be made
    block by block.  Last, the product rule on (8.2), summed over what each feeds:
    dqᵢ = (1/√D) Σⱼ dsᵢⱼ kⱼ                                  (8.19)
    dkⱼ = (1/√D) Σᵢ dsᵢⱼ qᵢ                                  (8.20)

Read it
    o is a weighted mean of values, so values that are all equal come out
    unchanged (without dropout).  Each row of ds adds up to 0.  A row changes
    nothing for a row that does not see it: a later one, or one in another
    branch of the forest.

Cost
    4·D operations and one exponential a head forward for each pair that is
    computed, 10·D and one exponential backward (the scores are made again).  A
    block of queries meets every key that one of its rows sees, and ends where a leaf
    ends if it can, so the pairs computed are about the visible ones where segments are
    long beside a block, and a few times as many where they are short.  Keeps qkv, o
    and λ: (4·C + H) numbers a row, and never a matrix of pairs larger than the square
    of a block a head.  What hides pairs is made once a forest, for all layers: one number
    a pair of each block that is visible in part, so B numbers a row in a long sequence.

On a CPU
    Going forward, blocks of queries do not meet, so each core takes one after the other, all
    heads at once.  Going backward they meet in dk and dv, and each core takes a share of
    the heads instead, G of them.  Meanwhile a product is its core's own (chapter 1), so a
    block may be as large as caches like it: up to 128 rows and 128 keys.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from math import sqrt
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from minigpt2.backend import Array, array_module, cores, each_block, fusible
from minigpt2.ops.dropout import keep_factors

Seen = tuple[slice, list[tuple[Array, Array | None]]]  # a block of rows, its keys, what is added


class Saved(NamedTuple):
    """What the backward pass needs from the forward pass."""

    qkv: Array  # (N, 3*C)
    end: Array  # (N,)
    o: Array  # (N, C)
    lse: Array  # (H, N, 1)
    n_head: int
    dropout: float
    seed: int
    block: int


def split_heads(x: Array, parts: int, n_head: int) -> Array:
    """View rows x (N, parts·C) as (parts, H, N, D); writing to the view writes to x."""
    n, features = x.shape
    return x.reshape(n, parts, n_head, features // (parts * n_head)).transpose(1, 2, 0, 3)


def query_blocks(end: Array, block: int) -> list[slice]:
    """Cut the rows of a forest into slices of at most `block`, behind a leaf where that can be.

    Row i is the last of a leaf iff end[i] = i + 1; rows up to the next one are a run.  One that
    does not fit is cut evenly.  Runs are taken together only up to half a block: no row of one
    sees the other's, and those pairs are computed for nothing.
    """
    slices, start = [], 0
    stops = (np.flatnonzero(end == np.arange(1, len(end) + 1)) + 1).tolist()
    for stop, after in pairwise([*stops, np.inf]):
        if after - start > block // 2:
            pieces = -(-(stop - start) // block)
            step = -(-(stop - start) // pieces)
            slices += [slice(i, min(i + step, stop)) for i in range(start, stop, step)]
            start = stop
    return slices


def key_blocks(
    end: Array, rows: slice, block: int, xp: ModuleType = np
) -> Iterator[tuple[Array, Array | None]]:
    """Yield the keys that a block of query rows sees, with who sees what; the rows' own first.

    A key j is seen by some row of the block iff j < rows.stop and end[j] > rows.start; no
    other key is looked at.  At most block² pairs come at once, their keys as a slice where they
    stand together, else as an array of indices, one of the library xp.  `visible` is (B, K), or
    None when all pairs are.
    """
    seen = np.flatnonzero(end[: rows.stop] > rows.start)
    i = np.arange(rows.start, rows.stop)[:, None]
    pieces = -(-len(seen) // (block**2 // len(i)))
    step = max(len(i), -(-len(seen) // pieces))
    for stop in range(len(seen), 0, -step):
        j = seen[max(0, stop - step) : stop]
        visible = (j <= i) & (i < end[j])  # (B, K)  (8.1)
        together = j[-1] - j[0] + 1 == len(j)
        keys = slice(j[0], j[-1] + 1) if together else xp.asarray(j)
        yield keys, None if visible.all() else visible


def mask_stream(seed: int, rows: slice) -> np.random.Generator:
    """Return the random numbers that drop probabilities of a block of query rows.

    The 1 keeps row 0's stream apart from that of the seed alone, which chapter 23 uses.
    """
    return np.random.default_rng([seed, rows.start, 1])


def seen_by_blocks(end: Array, block: int, xp: ModuleType, dtype: Any) -> list[Seen]:
    """Return each block of query rows with the blocks of keys it sees, and what is added to scores.

    That is 0 for a visible pair and −∞ for another, (B, K), or None when all pairs are visible:
    adding is many times faster than choosing.
    """
    return made_once(np.asarray(end, np.int64).tobytes(), block, xp, dtype)


@lru_cache(2)
def made_once(forest: bytes, block: int, xp: ModuleType, dtype: Any) -> list[Seen]:
    """Return what seen_by_blocks does, of end's bytes: all layers ask for the same forest."""

    def added(visible: Array | None) -> Array | None:
        if visible is None:
            return None
        return xp.asarray(np.where(visible, 0, -np.inf).astype(dtype))  # (8.1)

    end = np.frombuffer(forest, np.int64)
    return [
        (rows, [(keys, added(seen)) for keys, seen in key_blocks(end, rows, block, xp)])
        for rows in query_blocks(end, block)
    ]


def shares_of_heads(n_head: int, one: bool) -> list[slice]:
    """Return the heads of each core, as slices; all as one slice if that is asked for."""
    step = n_head if one else -(-n_head // cores())
    return [slice(i, min(i + step, n_head)) for i in range(0, n_head, step)]


def scores(q: Array, k: Array, added: Array | None) -> Array:
    """Return q kᵀ (H, B, K) for q (H, B, D), already divided by √D, and k (H, K, D)."""
    s = q @ k.transpose(0, 2, 1)  # (8.2)
    if added is not None:
        s += added  # (8.1)
    return s


@fusible
def attention(
    qkv: Array, end: Array, n_head: int, dropout: float = 0.0, seed: int = 0, block: int = 128
) -> tuple[Array, Saved]:
    """Attend over the forest that end (N,) describes; qkv (N, 3C) holds q, k, v side by side.

    Returns o (N, C).  With dropout, `seed` and `block` fix which probabilities are dropped.
    """
    xp = array_module(qkv)
    n, features = len(qkv), qkv.shape[1] // 3
    o = xp.empty((n, features), qkv.dtype)
    lse = xp.empty((n_head, n, 1), qkv.dtype)
    q, k, v = split_heads(qkv, 3, n_head)  # (H, N, D)
    o_heads = split_heads(o, 1, n_head)[0]  # (H, N, D)
    seen = seen_by_blocks(end, block, xp, qkv.real.dtype)

    def attend(one: Seen) -> None:
        rows, blocks = one
        rng = mask_stream(seed, rows) if dropout else None
        q_rows = q[:, rows] / sqrt(features // n_head)  # (H, B, D)  (8.2)
        m, total, a = xp.full((n_head, 1, 1), -xp.inf, lse.dtype), 0.0, 0.0
        for keys, added in blocks:
            s = scores(q_rows, k[:, keys], added)  # (H, B, K)  (8.2)
            m_new = xp.maximum(m, s.max(-1, keepdims=True))  # (H, B, 1)  (8.5)
            alpha = xp.exp(m - m_new)  # (H, B, 1)  (8.6)
            s -= m_new
            e = xp.exp(s, out=s)  # (H, B, K)  (8.7)
            total = alpha * total + e.sum(-1, keepdims=True)  # (H, B, 1)  (8.8)
            z_e = e * keep_factors(e.shape, dropout, rng, e) if rng else e
            a = alpha * a + z_e @ v[:, keys]  # (H, B, D)  (8.9)
            m = m_new
        o_heads[:, rows] = a / total  # (8.10)
        lse[:, rows] = m + xp.log(total)  # (8.11)

    if xp is np:
        each_block(attend, seen[::-1])  # the last blocks of a sequence see most: those first
    else:
        for one in seen:
            attend(one)
    return o, Saved(qkv, end, o, lse, n_head, dropout, seed, block)


@fusible
def attention_backward(do: Array, saved: Saved) -> Array:
    """Turn dL/do (N, C) into dL/dqkv (N, 3C)."""
    qkv, end, o, lse, n_head, dropout, seed, block = saved
    xp = array_module(qkv)
    n, features = do.shape
    scale = 1 / sqrt(features // n_head)
    dqkv = xp.empty_like(qkv)
    qkv_heads, dqkv_heads = split_heads(qkv, 3, n_head), split_heads(dqkv, 3, n_head)
    do_heads, o_heads = (split_heads(rows, 1, n_head)[0] for rows in (do, o))  # (H, N, D)
    seen = seen_by_blocks(end, block, xp, qkv.real.dtype)

    def go_back(heads: slice) -> None:
        q, k, v = qkv_heads[:, heads]  # (G, N, D)
        dk, dv = xp.zeros((2, *k.shape), k.dtype)  # (G, N, D)
        for rows, blocks in seen:
            q_rows = q[:, rows] * scale  # (G, B, D)  (8.2)
            do_rows, lse_rows = do_heads[heads, rows], lse[heads, rows]
            row_dots = (do_rows * o_heads[heads, rows]).sum(-1, keepdims=True)  # (G, B, 1)  (8.18)
            dq = xp.zeros_like(q_rows)  # (G, B, D)
            rng = mask_stream(seed, rows) if dropout else None
            for keys, added in blocks:
                k_rows = k[:, keys]  # (G, K, D)
                s = scores(q_rows, k_rows, added)  # (G, B, K)  (8.2)
                s -= lse_rows
                p = xp.exp(s, out=s)  # (G, B, K)  (8.12)
                dp = do_rows @ v[:, keys].transpose(0, 2, 1)  # (G, B, K)  (8.14)
                z_p = p
                if rng:
                    z = keep_factors(p.shape, dropout, rng, p)  # (G, B, K)
                    z_p = z * p
                    dp *= z  # (8.14)
                dv[:, keys] += z_p.transpose(0, 2, 1) @ do_rows  # (8.13)
                dp -= row_dots
                ds = xp.multiply(p, dp, out=dp)  # (G, B, K)  (8.17)
                dq += ds @ k_rows  # (8.19)
                dk[:, keys] += ds.transpose(0, 2, 1) @ q_rows  # (8.20)
            dq *= scale  # (8.19)
            dqkv_heads[0, heads, rows] = dq
        dqkv_heads[1, heads], dqkv_heads[2, heads] = dk, dv

    each_block(go_back, shares_of_heads(n_head, xp is not np or dropout > 0 or n <= block))
    return dqkv
