"""Cross-entropy with the projection inside: how improbable the right tokens are to the model.

Why
    The last hidden row of a token is compared with every row of the embedding;
    the better the match, the likelier that token comes next.  With V = 50,257
    entries the logits of a batch are its largest array by far, so they are computed
    for a few rows at a time, and only for rows that are supervised.

    What is supervised is a list of M triples (row, target, weight).  A row may occur
    in several triples (the last token of a prompt that has several answers), and most
    rows, those of prompts, occur in none.

Definition, for triple n with hidden row xₙ = x[rowₙ], target t = tₙ and weight wₙ
    ℓₙᵥ  = xₙ · wte[v]                                       (9.1)
    λₙ   = ln Σᵥ exp(ℓₙᵥ)                                    (9.2)
    nllₙ = λₙ − ℓₙₜ                                          (9.3)
    ℒ    = Σₙ wₙ nllₙ                                        (9.4)
    By (9.2) and (9.3) nllₙ = −ln( exp(ℓₙₜ) / Σᵥ exp(ℓₙᵥ) ), −ln p of the target, the
    negative log-likelihood.  For a mean, the caller puts 1/Σw into the weights: it
    knows the sum over the whole optimiser step, this op does not.

Derivation, where dx stands for ∂ℒ/∂x, and likewise for every other name
    The probability of entry v is the softmax of the logits, and by (9.2) it is also the
    derivative of λ, by the chain rule on the logarithm; v′ runs over all entries:
    ∂λₙ/∂ℓₙᵥ = exp(ℓₙᵥ) / Σᵥ′ exp(ℓₙᵥ′) = exp(ℓₙᵥ − λₙ) = pₙᵥ   (9.5)
    (In the code every exponential is taken relative to the row's largest logit m, as in
    (8.11): λₙ = m + ln Σᵥ exp(ℓₙᵥ − m), so that none overflows.)
    In (9.3) ℓₙₜ appears once more, by itself.  With δᵥₜ for the Kronecker delta, 1 at
    the target and 0 elsewhere, (9.5) gives p minus a one-hot row:
    ∂nllₙ/∂ℓₙᵥ = pₙᵥ − δᵥₜ                                   (9.6)
    and the factor of nllₙ in (9.4) is wₙ.  The chain rule with (9.6):
    dℓₙᵥ = wₙ (pₙᵥ − δᵥₜ)                                    (9.7)
    (9.1) is linear in both factors.  wte[v] meets every triple, and row i of x
    every triple that names it:
    dwte[v] = Σₙ dℓₙᵥ x[rowₙ]                                (9.8)
    dx[i]   = Σ_{n : rowₙ = i} Σᵥ dℓₙᵥ wte[v]                (9.9)

    This is the last op, so the backward pass begins here, with an upstream gradient of 1;
    scale the loss through the weights.  So the gradient is computed in the same pass as
    the loss, while a chunk's logits are in memory.

Read it
    The gradient of a triple's logits adds up to 0: a step raises the target's logit by
    as much as it lowers all others together.  It vanishes when p is 1 at the target.
    A row that no triple names, or only with weight 0, gets exactly zero.

Example: one row whose three logits have the exponentials 1, 2 and 5, target 1
    p = (1, 2, 5) / 8, so nll = −ln 2/8 = ln 4, and dℓ is p minus the one-hot row:
        p            0.125    0.250    0.625
        one-hot      0        1        0
        dℓ           0.125   −0.750    0.625
    With x = 1, ℓ is the table itself, and dℓ is dwte:
    >>> x, wte, dwte = np.ones((1, 1)), np.log([[1.0], [2.0], [5.0]]), np.zeros((3, 1))
    >>> rows, targets, weights = np.array([0]), np.array([1]), np.array([1.0])
    >>> loss, nll, dx = cross_entropy_gradient(x, wte, rows, targets, weights, dwte)
    >>> print(loss.round(4), np.log(4).round(4))  # (9.4)
    1.3863 1.3863
    >>> print(dwte.ravel().round(6))  # (9.7) (9.8)
    [ 0.125 -0.75   0.625]

Cost
    6·M·V·C operations for loss and gradient together, 2·M·V·C for the loss
    alone, and M·V exponentials either way; with the gradient, M counts only the
    triples whose weight is not 0.  Workspace: the logits of one chunk, and
    TABLE_BYTES of what is added to dwte.  A fresh (V, C) table would be the largest
    array of a step, so (9.8) is added to the caller's gradient in place; a dwte that
    is empty yet is overwritten by the first chunk, without being read.  On a CPU each
    core takes its share of a chunk's rows, in blocks that fit in its cache.
"""

from collections.abc import Iterator

import numpy as np

from minigpt2.backend import Array, accumulation_dtype, array_module, fusible
from minigpt2.ops.embedding import scatter_add
from minigpt2.parallel import map_rows, matmul

CHUNK_BYTES = 1 << 28  # of the logits of one chunk
TABLE_BYTES = 1 << 24  # of the rows of dwte that a chunk adds to at once


@fusible
def cross_entropy(
    x: Array,
    wte: Array,
    rows: Array,
    targets: Array,
    weights: Array,
    *,
    chunk: int | None = None,
) -> tuple[Array, Array]:
    """Return ℒ and the nll (M,) of x (N, C) and wte (V, C) for triples rows, targets, weights.

    Logits are made `chunk` triples at a time; by default as many as fit in CHUNK_BYTES.
    """
    nll = array_module(x).zeros(len(rows), accumulation_dtype(x.dtype))
    for part, _, logits in logit_chunks(x, wte, rows, chunk):
        nll[part] = nll_from_logits(logits, targets[part])  # (9.3)
    return weighted_sum(weights, nll), nll


@fusible
def cross_entropy_gradient(
    x: Array,
    wte: Array,
    rows: Array,
    targets: Array,
    weights: Array,
    dwte: Array | None,
    *,
    chunk: int | None = None,
    accumulate: bool = True,
) -> tuple[Array, Array, Array]:
    """Return ℒ, the nll (M,) and dL/dx (N, C); add dL/dwte to dwte (V, C).

    A triple of weight 0 is left out, and its nll stays 0.  Without `accumulate`, dL/dwte is written
    over what dwte holds.  Where wte is frozen, dwte is None.
    """
    xp = array_module(x)
    used = np.flatnonzero(weights)
    nll_used = xp.empty(len(used), accumulation_dtype(x.dtype))
    dx_used = xp.empty((len(used), x.shape[1]), x.dtype)
    if dwte is not None and not accumulate and not len(used):
        dwte[...] = 0
    for part, x_n, logits in logit_chunks(x, wte, rows[used], chunk):
        n = used[part]
        nll_used[part] = nll_and_dlogits(logits, targets[n], weights[n])  # (9.3)
        dlogits = logits  # the same memory, which now holds the gradient (9.7)
        if dwte is not None:
            add_product(dwte, dlogits, x_n, accumulate=accumulate or part.start > 0)  # (9.8)
        dx_used[part] = matmul(dlogits, wte)  # (9.9)
    nll = xp.zeros(len(rows), nll_used.dtype)
    nll[xp.asarray(used)] = nll_used
    dx = scatter_add(dx_used, rows[used], len(x))  # (N, C)  (9.9)
    return weighted_sum(weights, nll), nll, dx.astype(x.dtype, copy=False)


def weighted_sum(weights: Array, nll: Array) -> Array:
    """Return Σ w nll of weights and nll (M,), in the precision of nll."""
    return (array_module(nll).asarray(weights, nll.real.dtype) * nll).sum()  # (9.4)


def logit_chunks(
    x: Array, wte: Array, rows: Array, chunk: int | None
) -> Iterator[tuple[slice, Array, Array]]:
    """Yield for each chunk of triples its slice, its rows of x (B, C) and their logits (B, V).

    All chunks' logits share one memory: they are used up before the next chunk is asked for.
    """
    xp = array_module(x)
    chunk = chunk or max(1, CHUNK_BYTES // (len(wte) * x.dtype.itemsize))
    memory = xp.empty_like(wte, shape=(min(chunk, len(rows)), len(wte)))
    for start in range(0, len(rows), chunk):
        part = slice(start, min(start + chunk, len(rows)))
        x_n = x[xp.asarray(rows[part])]  # (B, C)
        logits = matmul(x_n, wte.T, memory[: len(x_n)])  # (B, V)  (9.1)
        yield part, x_n, logits


@fusible
def nll_from_logits(logits: Array, targets: Array) -> Array:
    """Return the nll (B,) of logits (B, V) and targets (B,).  The logits are used up."""

    def formula(logits: Array, targets: Array) -> Array:
        xp = array_module(logits)
        at_target = logits[xp.arange(len(logits)), xp.asarray(targets)]  # (B,)
        m, total = exponentials(logits)
        return (m + xp.log(total))[:, 0] - at_target  # (B,)  (9.2) (9.3)

    return map_rows(formula, logits, targets)


@fusible
def nll_and_dlogits(logits: Array, targets: Array, weights: Array) -> Array:
    """Return the nll (B,) of logits (B, V) and targets (B,), and put dL/dlogits over the logits.

    The weights (B,) are those of (9.4).
    """

    def formula(logits: Array, targets: Array, weights: Array) -> Array:
        xp = array_module(logits)
        target = (xp.arange(len(logits)), xp.asarray(targets))
        at_target = logits[target]  # (B,)
        m, total = exponentials(logits)
        w = xp.asarray(weights, total.real.dtype)[:, None]  # (B, 1)
        dlogits = logits  # the same memory, from here on the gradient
        dlogits *= w / total  # (B, V)  (9.7)
        dlogits[target] -= w[:, 0]  # (9.7)
        return (m + xp.log(total))[:, 0] - at_target  # (B,)  (9.2) (9.3)

    return map_rows(formula, logits, targets, weights)


def exponentials(logits: Array) -> tuple[Array, Array]:
    """Put exp(logits − m) over the logits (B, V); return their largest, m, and the sums, (B, 1)."""
    m = logits.max(-1, keepdims=True)  # (B, 1)
    logits -= m
    array_module(logits).exp(logits, out=logits)
    return m, logits.sum(-1, keepdims=True)  # (B, 1), (B, 1)


def add_product(dwte: Array, dlogits: Array, x: Array, *, accumulate: bool) -> None:
    """Add dlogits.T @ x, of dlogits (B, V) and x (B, C), to dwte (V, C), or write it there."""
    if not accumulate and dwte.dtype == x.dtype:
        matmul(dlogits.T, x, dwte)  # (9.8)
        return
    if not accumulate:
        dwte[...] = 0
    step = max(1, TABLE_BYTES // dwte[:1].nbytes)
    for start in range(0, len(dwte), step):
        entries = slice(start, start + step)
        dwte[entries] += matmul(dlogits[:, entries].T, x)  # (9.8)
