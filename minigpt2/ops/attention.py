"""Attention over the token forest: each token reads the tokens that lead up to it.

Why
    Every other op treats rows one by one.  This one lets a token gather features
    from earlier tokens, from each as much as its key agrees with the token's query.

Who sees whom
    A batch is one row of tokens cut into a forest of segments (data/forest).  A token sees its own
    segment up to itself, and the whole of every ancestor.  Segments are laid out depth first, so
    rows that may see row j follow it without a gap, up to end[j], where its segment's subtree ends.
    row i sees row j  ⟺  j ≤ i < end[j]                      (8.1)

    For example nine rows in five segments.  The first, rows 0 to 2, is continued by
    3-4 and by 7; 3-4 is continued by 5-6; row 8 is a tree of its own:

        row   0  1  2 │ 3  4 │ 5  6 │ 7 │ 8         0-2 ─┬─ 3-4 ─── 5-6
        end   8  8  8 │ 7  7 │ 7  7 │ 8 │ 9              └─ 7
                                                    8
    Row 7 sees 0, 1, 2 and 7, but not 3 to 6, whose end is 7.  In one sequence end[j] = N.

Definition, for one head of D features, with j and n over the rows that i sees
    sᵢⱼ = qᵢ · kⱼ / τ                                        (8.2)
    pᵢⱼ = exp(sᵢⱼ) / Σₙ exp(sᵢₙ)                             (8.3)
    oᵢ  = Σⱼ zᵢⱼ pᵢⱼ vⱼ                                      (8.4)
    Each row has a query q, what it looks for; a key k, by which others find it; a value v, what
    they read from it.  All three come from one linear map of the row (model/block).  The H heads do
    the same, each with its own D of the C features, and o holds their outputs one after the other.
    The keep factors z of dropout (7.1) are 1 where there is none.  q · k is a sum of D products.
    If their factors are independent, with mean 0 and variance 1, its variance is D, and division by
    τ = √D brings it back to 1, where the softmax does not yet put everything on one key.  (Vaswani
    et al. 2017, equation 1 and section 3.2.)  Some models have another τ, by (12.4).

In plain NumPy, for one head, with all N·N pairs (with the rest: tests/plain.py)
    >>> def plain_attention(q, k, v, end):
    ...     i, j = np.indices((len(q), len(q)))
    ...     s = q @ k.T / np.sqrt(q.shape[1])               # (8.2), τ = √D
    ...     s = np.where((j <= i) & (i < end), s, -np.inf)  # (8.1)
    ...     e = np.exp(s - s.max(1, keepdims=True))         # (6.2)
    ...     p = e / e.sum(1, keepdims=True)                 # (8.3)
    ...     return p @ v                                    # (8.4)

    Four rows of one sequence, D = 1, every q = 1, and keys that are logarithms of whole numbers, so
    exp(s) = 4, 2, 1, 2.  Row 3 has p = (4, 2, 1, 2) / 9, reads (4·9 + 2·18 + 1·12 + 2·3) / 9 = 10:
    >>> q, k = np.ones((4, 1)), np.log([[4.0], [2], [1], [2]])
    >>> v = np.array([[9.0], [18], [12], [3]])
    >>> print(plain_attention(q, k, v, end=np.full(4, 4)).ravel().round(6))
    [ 9. 12. 12. 10.]

Forward without the (N, N) matrix: the online softmax
    Go through the keys block by block.  For each row keep the largest score so
    far, m, and two sums taken relative to it, so that no exponential overflows:
    ℓ = Σⱼ exp(sᵢⱼ − m)  and  a = Σⱼ zᵢⱼ exp(sᵢⱼ − m) vⱼ,  beginning with m = −∞ and
    ℓ = a = 0.  A new block may raise m; up to (8.9) maxⱼ and Σⱼ are over its keys alone:
    m′ = max(m, maxⱼ sᵢⱼ)                                    (8.5)
    exp(s − m′) = exp(s − m) exp(m − m′), so the old sums are multiplied by
    α  = exp(m − m′)                                         (8.6)
    and the new terms join them:
    eᵢⱼ = exp(sᵢⱼ − m′)                                      (8.7)
    ℓ′ = α ℓ + Σⱼ eᵢⱼ                                        (8.8)
    a′ = α a + Σⱼ zᵢⱼ eᵢⱼ vⱼ                                 (8.9)
    By induction ℓ and a are the two sums over all keys seen so far.  After the last
    block, exp(m) ℓ and exp(m) a are the sums of (8.3) and (8.4), and exp(m) cancels:
    oᵢ = Σⱼ zᵢⱼ exp(sᵢⱼ) vⱼ / Σⱼ exp(sᵢⱼ) = a / ℓ            (8.10)
    One number a row is enough to find every probability again, the log-sum-exp
    λᵢ = m + ln ℓ = ln Σⱼ exp(sᵢⱼ)                           (8.11)
    because (8.3) divides exp(sᵢⱼ) by exp(λᵢ):
    pᵢⱼ = exp(sᵢⱼ − λᵢ)                                      (8.12)
    The block with the row itself comes first.  There each row sees at least itself, so m is finite
    from then on and −∞ − (−∞) never arises.  Any other m would cancel as well: it only keeps
    exponentials small, so a kernel may let it lag.  (Milakov and Gimelshein 2018; Dao et al. 2022.)

    The last row of the example in two blocks of two keys, its own block first:
        keys 2, 3    exp(s) = 1, 2    m = ln 2            e = ½, 1    ℓ = 1.5     a = 9
        keys 0, 1    exp(s) = 4, 2    m = ln 4, α = ½     e = 1, ½    ℓ = 2.25    a = 22.5
    and o = 22.5 / 2.25 = 10 again, λ = ln 4 + ln 2.25 = ln 9:
    >>> o, saved = attention(np.hstack([q, k, v]), np.full(4, 4), n_head=1, block=2)
    >>> print(o.ravel().round(6), np.exp(saved.lse[0, 3]).round(6))
    [ 9. 12. 12. 10.] [9.]

Derivation, where dx stands for ∂ℒ/∂x, and likewise for every other name
    oᵢ is linear in the values, and vⱼ feeds every row that sees j.  From (8.4):
    dvⱼ  = Σᵢ zᵢⱼ pᵢⱼ doᵢ                                    (8.13)
    dpᵢⱼ = zᵢⱼ (doᵢ · vⱼ)                                    (8.14)
    The softmax's Jacobian by way of λ.  The derivative of the logarithm in (8.11) and (8.3) give
    ∂λᵢ/∂sᵢₙ = exp(sᵢₙ) / Σⱼ exp(sᵢⱼ) = pᵢₙ                  (8.15)
    and the chain rule on (8.12) with (8.15), δ being the Kronecker delta:
    ∂pᵢⱼ/∂sᵢₙ = pᵢⱼ (δⱼₙ − pᵢₙ)                              (8.16)
    Sum (8.16) over every pᵢⱼ that sᵢₙ feeds.  δⱼₙ picks j = n; the rest is called Δᵢ = Σⱼ pᵢⱼ dpᵢⱼ:
    dsᵢₙ = Σⱼ dpᵢⱼ pᵢⱼ (δⱼₙ − pᵢₙ) = pᵢₙ (dpᵢₙ − Δᵢ)         (8.17)
    Δᵢ looks as if it needed a whole row of p and dp at once, a product over all pairs
    before the first ds.  Put (8.14) into it, take doᵢ out of the sum, and find (8.4):
    Δᵢ = Σⱼ pᵢⱼ zᵢⱼ (doᵢ · vⱼ) = doᵢ · Σⱼ zᵢⱼ pᵢⱼ vⱼ = doᵢ · oᵢ   (8.18)
    This is one inner product of two rows that are at hand, so ds can be made block
    by block.  Last, (8.2) is linear in qᵢ and in kⱼ.  Sum over the scores that each feeds:
    dqᵢ = (1/τ) Σⱼ dsᵢⱼ kⱼ                                   (8.19)
    dkⱼ = (1/τ) Σᵢ dsᵢⱼ qᵢ                                   (8.20)
    In the code ℓ is `total`, λ is `lse`, Δ is `delta` and τ is `divisor`.

    In the example, let ℒ be the last row's output.  Then dp = v = (9, 18, 12, 3),
    Δ = o = 10, and ds = p (dp − Δ) = (4·−1, 2·8, 1·2, 2·−7) / 9, which adds up to 0.
    As q = 1, dk is ds; and dv is p.  Nine times both, as rows:
    >>> dqkv = attention_backward(np.array([[0.0], [0], [0], [1]]), saved)
    >>> print((9 * dqkv[:, 1:].T).round(6))
    [[ -4.  16.   2. -14.]
     [  4.   2.   1.   2.]]

Tiles that are seen whole, or not at all, which is how kernels test them
    Let keys a to b have ends from e to E.  By (8.1), of the queries u to w
    any sees any  ⟹  a ≤ w  and  u < E                       (8.21)
    all see all  ⟺  b ≤ u  and  w < e                        (8.22)
    (8.21): if i sees j, then a ≤ j ≤ i ≤ w and u ≤ i < end[j] ≤ E.  (8.22): if all see all, u sees
    b and w sees the key that ends at e; conversely j ≤ b ≤ u ≤ i ≤ w < e ≤ end[j].

Read it
    o is a weighted mean of values, so values that are all equal come out unchanged
    (without dropout).  Each row of ds adds up to 0.  A row changes nothing for a row that
    does not see it: a later one, or one in another branch of the forest.

Cost
    A head needs 4·D operations and one exponential forward for each pair that is computed (see
    ops/attention_tiles), 10·D and one exponential backward, where the scores are recomputed.  Keeps
    qkv, o and λ: (4·C + H) numbers a row, and never a matrix of pairs larger than a block's square.
"""

from math import sqrt
from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array, accumulation_dtype, array_module, fusible
from minigpt2.ops.attention_tiles import QueryBlock, dropout_rng, head_groups, scores, tile_plan
from minigpt2.ops.dropout import keep_factors, scaled
from minigpt2.parallel import cores, each_block


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
    divisor: float


def split_heads(x: Array, parts: int, n_head: int) -> Array:
    """View rows x (N, parts·C) as (parts, H, N, D); writing to the view writes to x."""
    n, features = x.shape
    return x.reshape(n, parts, n_head, features // (parts * n_head)).transpose(1, 2, 0, 3)


@fusible
def attention(
    qkv: Array,
    end: Array,
    n_head: int,
    dropout: float = 0.0,
    seed: int = 0,
    block: int = 128,
    divisor: float | None = None,
) -> tuple[Array, Saved]:
    """Attend over the forest that end (N,) describes.

    qkv (N, 3C) holds queries, keys and values, C features each.  Returns o (N, C).  With dropout,
    `seed` and `block` fix which are dropped.  Without a divisor it is √D.  No sum is in 16 bits.
    """
    xp, wide = array_module(qkv), accumulation_dtype(qkv.dtype)
    n, features = len(qkv), qkv.shape[1] // 3
    divisor = sqrt(features // n_head) if divisor is None else divisor
    o, lse = xp.empty((n, features), wide), xp.empty((n_head, n, 1), wide)
    q, k, v = split_heads(qkv.astype(wide, copy=False), 3, n_head)  # (H, N, D)
    o_heads = split_heads(o, 1, n_head)[0]  # (H, N, D)

    def attend(query_block: QueryBlock) -> None:
        rows = query_block.rows
        rng = dropout_rng(seed, rows) if dropout else None
        q_rows = q[:, rows] / divisor  # (H, B, D)  (8.2)
        m, total, a = xp.full((n_head, 1, 1), -xp.inf, lse.dtype), 0.0, 0.0
        for keys, mask in query_block.tiles:
            s = scores(q_rows, k[:, keys], mask)  # (H, B, K)  (8.2)
            m_new = xp.maximum(m, s.max(-1, keepdims=True))  # (H, B, 1)  (8.5)
            alpha = xp.exp(m - m_new)  # (H, B, 1)  (8.6)
            s -= m_new
            e = xp.exp(s, out=s)  # (H, B, K)  (8.7)
            total = alpha * total + e.sum(-1, keepdims=True)  # (H, B, 1)  (8.8)
            z_e = scaled(e, keep_factors(e.shape, dropout, rng, e), out=e) if rng else e
            a = alpha * a + z_e @ v[:, keys]  # (H, B, D)  (8.9)
            m = m_new
        o_heads[:, rows] = a / total  # (8.10)
        lse[:, rows] = m + xp.log(total)  # (8.11)

    plan = tile_plan(end, block, xp, lse.real.dtype)
    if xp is np:
        each_block(attend, plan[::-1])  # the last blocks of a sequence see most: those first
    else:
        for query_block in plan:
            attend(query_block)
    o = o.astype(qkv.dtype, copy=False)
    return o, Saved(qkv, end, o, lse, n_head, dropout, seed, block, divisor)


@fusible
def attention_backward(do: Array, saved: Saved) -> Array:
    """Turn dL/do (N, C) into dL/dqkv (N, 3C)."""
    qkv, end, o, lse, n_head, dropout, seed, block, divisor = saved
    xp, dtype = array_module(qkv), qkv.dtype
    qkv, do, o = (rows.astype(lse.dtype, copy=False) for rows in (qkv, do, o))
    n, scale = len(do), 1 / divisor
    dqkv = xp.empty_like(qkv)
    qkv_heads, dqkv_heads = split_heads(qkv, 3, n_head), split_heads(dqkv, 3, n_head)
    do_heads, o_heads = (split_heads(rows, 1, n_head)[0] for rows in (do, o))  # (H, N, D)
    plan = tile_plan(end, block, xp, lse.real.dtype)

    def attend_backward(heads: slice) -> None:
        q, k, v = qkv_heads[:, heads]  # (G, N, D)
        dk, dv = xp.zeros((2, *k.shape), k.dtype)  # (G, N, D)
        for rows, tiles in plan:
            q_rows = q[:, rows] * scale  # (G, B, D)  (8.2)
            do_rows, lse_rows = do_heads[heads, rows], lse[heads, rows]
            delta = (do_rows * o_heads[heads, rows]).sum(-1, keepdims=True)  # (G, B, 1)  (8.18)
            dq = xp.zeros_like(q_rows)  # (G, B, D)
            rng = dropout_rng(seed, rows) if dropout else None
            for keys, mask in tiles:
                k_rows = k[:, keys]  # (G, K, D)
                s = scores(q_rows, k_rows, mask)  # (G, B, K)  (8.2)
                s -= lse_rows
                p = xp.exp(s, out=s)  # (G, B, K)  (8.12)
                dp = do_rows @ v[:, keys].transpose(0, 2, 1)  # (G, B, K)  (8.14)
                z_p = p
                if rng:
                    z = keep_factors(p.shape, dropout, rng, p)  # (G, B, K)
                    z_p = scaled(p, z)
                    dp = scaled(dp, z, out=dp)  # (8.14)
                dv[:, keys] += z_p.transpose(0, 2, 1) @ do_rows  # (8.13)
                dp -= delta
                ds = xp.multiply(p, dp, out=dp)  # (G, B, K)  (8.17)
                dq += ds @ k_rows  # (8.19)
                dk[:, keys] += ds.transpose(0, 2, 1) @ q_rows  # (8.20)
            dq *= scale  # (8.19)
            dqkv_heads[0, heads, rows] = dq
        dqkv_heads[1, heads], dqkv_heads[2, heads] = dk, dv

    masks_span_all_heads = dropout > 0  # a block's z is drawn for all heads in one go
    undivided = xp is not np or n <= block or masks_span_all_heads
    each_block(attend_backward, head_groups(n_head, 1 if undivided else cores()))
    return dqkv.astype(dtype, copy=False)
