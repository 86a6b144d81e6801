"""Cross-entropy with the projection inside: how surprised the model is by the right tokens.

Why
    The last hidden row of a token is compared with every row of the embedding;
    the better the match, the likelier that token comes next.  With V = 50,257
    entries the logits of a batch are its largest array by far, so they are made
    for a few rows at a time, and only for rows that are supervised.

    What is supervised is a list of M triples (row, target, weight).  A row may
    stand in several (the last token of a prompt that has several answers), and
    most rows, those of prompts, stand in none.

Definition, for triple n with hidden row xₙ = x[rowₙ], target t = tₙ and weight wₙ
    ℓₙᵥ  = xₙ · wte[v]                                       (9.1)
    λₙ   = ln Σᵥ exp(ℓₙᵥ)                                    (9.2)
    nllₙ = λₙ − ℓₙₜ                                          (9.3)
    ℒ    = Σₙ wₙ nllₙ                                        (9.4)
    By (9.2) and (9.3) nllₙ = −ln( exp(ℓₙₜ) / Σᵥ exp(ℓₙᵥ) ), −ln p of the target, the
    negative log-likelihood.  For a mean, the weights carry the 1/Σw: the
    caller knows the sum over the whole optimiser step, this op does not.

Derivation, writing dz for ∂ℒ/∂z
    ∂λₙ/∂ℓₙᵥ = exp(ℓₙᵥ) / Σᵥ′ exp(ℓₙᵥ′) = pₙᵥ by the chain rule on (9.2), and only
    ℓₙₜ appears by itself in (9.3).  So (9.4) gives, δ being the Kronecker delta,
    dℓₙᵥ = wₙ (pₙᵥ − δᵥₜ),  pₙᵥ = exp(ℓₙᵥ − λₙ)              (9.5)
    (9.1) is linear in both factors.  wte[v] meets every triple, and row i of x
    every triple that names it:
    dwte[v] = Σₙ dℓₙᵥ x[rowₙ]                                (9.6)
    dx[i]   = Σ_{n : rowₙ = i} Σᵥ dℓₙᵥ wte[v]                (9.7)

    The output is one number, so what reaches the backward pass is one number
    too: dℒ, what ℒ is multiplied by later.  The gradient for dℒ = 1 can therefore
    be made while a chunk's logits are at hand, and the backward pass multiplies:
    (dx, dwte) ← dℒ · (dx, dwte)                             (9.8)

Read it
    The gradient of a triple's logits adds up to 0: what the target gains, the
    others lose.  It vanishes when p is 1 at the target.  A row that stands in no
    triple, or only with weight 0, gets exactly zero.

Cost
    6·M·V·C operations for loss and gradient together, 2·M·V·C for the loss
    alone, and M·V exponentials either way; with the gradient, M counts only the
    triples whose weight is not 0.  Keeps dx and dwte.  Workspace: the logits of
    one chunk, and TABLE_BYTES of what the chunk adds to dwte.
"""

from typing import NamedTuple

from minigpt2.backend import Array, array_module
from minigpt2.ops.embedding import scatter_add

CHUNK_BYTES = 1 << 27  # of the logits of one chunk
TABLE_BYTES = 1 << 24  # of the rows of dwte that a chunk adds to at once


class Saved(NamedTuple):
    """The negative log-likelihoods, and the gradient for dℒ = 1 (None if not asked for).

    With the gradient, a triple of weight 0 is left out and its nll stays 0.
    """

    nll: Array  # (M,)
    dx: Array | None  # (N, C)
    dwte: Array | None  # (V, C)


def cross_entropy(
    x: Array,
    wte: Array,
    rows: Array,
    targets: Array,
    weights: Array,
    gradient: bool = True,
    chunk: int | None = None,
) -> tuple[Array, Saved]:
    """Return ℒ of x (N, C) and wte (V, C) for the triples rows, targets, weights (M,).

    Logits are made `chunk` triples at a time; by default as many as fit in CHUNK_BYTES.
    With gradient=False only the loss is computed, and no backward pass is possible.
    """
    xp = array_module(x)
    chunk = chunk or max(1, CHUNK_BYTES // (len(wte) * x.dtype.itemsize))
    used = xp.flatnonzero(weights) if gradient else xp.arange(len(rows))
    nll = xp.zeros(len(rows), x.dtype)
    dx_used = xp.empty((len(used) if gradient else 0, x.shape[1]), x.dtype)
    dwte = (xp.empty_like if len(used) else xp.zeros_like)(wte) if gradient else None
    for start in range(0, len(used), chunk):
        part = slice(start, start + chunk)
        n = used[part]
        x_n = x[rows[n]]  # (B, C)
        logits = x_n @ wte.T  # (B, V)  (9.1)
        target = (xp.arange(len(n)), targets[n])
        at_target = logits[target]  # (B,)
        m = logits.max(-1, keepdims=True)  # (B, 1)
        logits -= m
        xp.exp(logits, out=logits)
        total = logits.sum(-1, keepdims=True)  # (B, 1)
        nll[n] = (m + xp.log(total))[:, 0] - at_target  # (9.2) (9.3)
        if gradient:
            w = weights[n][:, None].astype(x.real.dtype)  # (B, 1)
            dlogits = logits  # the same memory, from here on the gradient
            dlogits *= w / total  # (B, V)  (9.5)
            dlogits[target] -= w[:, 0]  # (9.5)
            add_to_table(dwte, dlogits, x_n, first=start == 0)  # (9.6)
            dx_used[part] = dlogits @ wte  # (9.7)
    loss = (weights.astype(x.real.dtype) * nll).sum()  # (9.4)
    dx = scatter_add(dx_used, rows[used], len(x)) if gradient else None  # (N, C)  (9.7)
    return loss, Saved(nll, dx, dwte)


def add_to_table(dwte: Array, dlogits: Array, x: Array, first: bool) -> None:
    """Add dlogits.T @ x, of dlogits (B, V) and x (B, C), to dwte (V, C); the first is written."""
    if first:
        array_module(x).matmul(dlogits.T, x, out=dwte)  # (9.6)
        return
    step = max(1, TABLE_BYTES // dwte[:1].nbytes)
    for start in range(0, len(dwte), step):
        entries = slice(start, start + step)
        dwte[entries] += dlogits[:, entries].T @ x  # (9.6)


def cross_entropy_backward(dloss: Array, saved: Saved) -> tuple[Array, Array]:
    """Turn dL/dloss, one number, into dL/dx (N, C) and dL/dwte (V, C)."""
    if saved.dx is None:
        raise ValueError("cross_entropy ran with gradient=False: there is nothing to go back from")
    if dloss == 1:
        return saved.dx, saved.dwte  # (9.8)
    dx = dloss * saved.dx  # (N, C)  (9.8)
    dwte = dloss * saved.dwte  # (V, C)  (9.8)
    return dx, dwte
