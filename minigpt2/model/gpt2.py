"""GPT-2: tokens in, hidden rows out, a loss at the end, and the gradient of all parameters.

Why
    Everything before this chapter is a part; here the parts stand in a row.

Definition
    x₀ = drop( wte[ids] + wpe[positions] )                         (15.1)
    xₗ = blockₗ( xₗ₋₁ ),  l = 1 … L                                (15.2)
    h  = ln_f( x_L )                                               (15.3)
    ℒ  = Σₙ wₙ nllₙ, the nll being those of  h wteᵀ                 (15.4)

    The sum names few rows of h, so (15.2) makes no others in the last block, by (14.5).

Derivation, writing dz for ∂ℒ/∂z
    (15.1) to (15.4) are a chain, so the backward pass goes through it once from
    the end.  One tensor stands in two links: wte is read in (15.1) and
    multiplied in (15.4), and its gradients add,
    dwte = dwte of (15.1) + dwte of (15.4)                         (15.5)

    With recomputation every block keeps what model/block lists, and its backward pass
    makes the rest again: the same operations on the same numbers, so the same bits.

Read it
    Untrained, the model knows nothing: its loss per token is close to ln V.

Cost
    The blocks' 12·L·C² weights meet every row, but for 9·C² of the last block, which
    meet the R rows that the loss reads; the V·C of wte meet the M supervised triples.
    With 2 operations each forward and 4 backward:
    2·(12·L·C²·N − 9·C²·(N − R) + V·C·M) forward and twice that backward, plus attention's.
    Recomputation adds 8·C²·(L·N − (N − R)) and keeps 6 rows of C for each row and block, not 16.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from minigpt2.backend import Array
from minigpt2.model.batch import Batch
from minigpt2.model.block import Attend, block, block_backward, through_layer_norm
from minigpt2.model.gradients import Gradients
from minigpt2.model.parameters import Parameters
from minigpt2.ops.attention import attention
from minigpt2.ops.cross_entropy import cross_entropy, cross_entropy_gradient
from minigpt2.ops.dropout import dropout, dropout_backward
from minigpt2.ops.embedding import embedding, embedding_backward
from minigpt2.ops.layer_norm import layer_norm


class Saved(NamedTuple):
    """What the backward pass needs from the forward pass."""

    embedding: Any
    drop: Any
    blocks: list[Any]  # what each block saved
    ln_f: Any


def gpt2(
    parameters: Parameters,
    batch: Batch,
    drop: float = 0.0,
    rng: np.random.Generator | None = None,
    recompute: bool = False,
    attend: Attend | None = None,
    backward: bool = True,
    read: Array | None = None,
) -> tuple[Array, Saved]:
    """Return the hidden rows h (R, C) of a batch; h @ wte.T are the logits.

    The last block makes the rows that are `read` (R,), each named once; without that all N.
    `rng` draws the dropout masks' seeds; without one drop > 0 raises ValueError.  `attend` takes
    attention's place: it is called with the layer's index, then as attention is, and returns what
    attention returns.  Where no `backward` pass follows, no block keeps anything.
    """
    config, p = parameters.config, parameters
    x, emb = embedding(p["wte.weight"], p["wpe.weight"], batch.ids, batch.positions)  # (15.1)
    x, dropped = dropout(x, drop, rng)  # (N, C)  (15.1)
    blocks = []
    for layer in range(config.n_layer):
        seed = int(rng.integers(2**63)) if drop and rng else 0
        how = (config.n_head, config.layer_norm_epsilon, drop, seed)
        of_these = read if layer == config.n_layer - 1 else None
        which = (partial(attend, layer) if attend else attention, recompute, backward, of_these)
        arguments = (x, batch.end, p.block(layer), *how, *which)
        x, saved = block(*arguments)  # (15.2)
        blocks.append(saved)
        del saved, arguments
    eps = config.layer_norm_epsilon
    h, ln_f = layer_norm(x, p["ln_f.weight"], p["ln_f.bias"], eps)  # (R, C)  (15.3)
    return h, Saved(emb, dropped, blocks, ln_f)


def gpt2_backward(dh: Array, saved: Saved, gradients: Gradients) -> None:
    """Turn dL/dh (R, C) into the gradient of every parameter, written or added to `gradients`.

    Uses `saved` up: what a block kept is freed as soon as its backward pass is done.
    """
    dx = through_layer_norm(dh, saved.ln_f, gradients, "ln_f")  # (R, C)  (15.3)
    for layer in reversed(range(len(saved.blocks))):
        dx = block_backward(dx, saved.blocks.pop(), gradients.block(layer))  # (15.2)
    dx = dropout_backward(dx, saved.drop)  # (N, C)  (15.1)
    dwte, dwpe = gradients.sums("wte.weight"), gradients.sums("wpe.weight")
    embedding_backward(dx, saved.embedding, dwte, dwpe)  # (15.1) (15.5)


def rows_read(batch: Batch) -> tuple[Array | None, Array]:
    """Return the rows of h that the loss reads (R,), and each triple's place among them (M,).

    Instead of all N rows in their order it returns None.
    """
    read, places = np.unique(batch.rows, return_inverse=True)  # (R,), (M,)
    return (None if len(read) == len(batch.ids) else read), places


def loss_of(parameters: Parameters, batch: Batch) -> tuple[Array, Array]:
    """Return the loss of a batch, and the negative log-likelihood of each triple (M,)."""
    read, rows = rows_read(batch)
    h, _ = gpt2(parameters, batch, backward=False, read=read)
    triples = rows, batch.targets, batch.weights
    return cross_entropy(h, parameters["wte.weight"], *triples)  # (15.4)


def loss_and_gradients(
    parameters: Parameters,
    batch: Batch,
    gradients: Gradients,
    *,
    drop: float = 0.0,
    rng: np.random.Generator | None = None,
    recompute: bool = False,
) -> tuple[Array, Array]:
    """Write or add the gradients of a batch's loss to `gradients`; return what `loss_of` returns.

    The nll of a triple with weight 0 is not computed and stays 0.
    """
    read, rows = rows_read(batch)
    h, saved = gpt2(parameters, batch, drop, rng, recompute, read=read)
    dwte, accumulate = gradients.claim("wte.weight")
    loss, nll, dh = cross_entropy_gradient(
        h,
        parameters["wte.weight"],
        rows,
        batch.targets,
        batch.weights,
        dwte,
        accumulate=accumulate,
    )  # (15.4) (15.5)
    gpt2_backward(dh, saved, gradients)
    return loss, nll
