"""GPT-2: tokens in, hidden rows out, a loss at the end, and the gradient of all parameters.

Why
    The chapters before this one are the parts; here they follow one another.

Forward
    e   = wte[ids] + wpe[positions]                                (16.1)
    x₀  = drop(e)                                                  (16.2)
    xₗ  = blockₗ(xₗ₋₁),  l = 1 … L                                 (16.3)
    h   = ln_f(x_L)                                                (16.4)
    ℒ   = Σₙ wₙ nllₙ, with the nll (9.3) of the logits h wteᵀ      (16.5)
    The sum reads few rows of h, so the last block computes no others, by (15.21).

Backward, from the last line to the first
    dx stands for ∂ℒ/∂x, and f*(dy) for what the backward pass of f makes of dy.
    dh     = the dx of (9.9)                                       (16.6)
    dx_L   = ln_f*(dh)                                             (16.7)
    dxₗ₋₁  = blockₗ*(dxₗ),  l = L … 1                              (16.8)
    de     = drop*(dx₀)                                            (16.9)
    dwpe   = the dwpe of (3.3), for de                             (16.10)
    wte is used twice, looked up in (16.1) and multiplied in (16.5), so its gradients add:
    dwte   = the dwte of (3.2), for de, + the dwte of (9.8)        (16.11)

    With recomputation every block saves a checkpoint (model/block), and its backward pass
    computes the other arrays a second time: the same operations on the same numbers, so
    the same bits.

Read it
    Untrained, the model knows nothing: its loss per token is close to ln V.

Example: where all parameters are 0, all logits are 0, and each of V = 8 tokens has p = 1/8
    >>> from minigpt2.model.config import GPT2Config
    >>> from minigpt2.model.gradients import gradients_of
    >>> config = GPT2Config(vocab_size=8, n_positions=4, n_embd=2, n_layer=1, n_head=1)
    >>> parameters = Parameters(config, np.zeros(config.n_parameters))
    >>> ids, end = np.array([5, 3, 6]), np.array([3, 3, 3])
    >>> batch = Batch(ids, np.arange(3), end, np.array([0, 1]), np.array([3, 6]), np.ones(2) / 2)
    >>> loss, nll = loss_of(parameters, batch)  # of the targets 3 and 6, each with weight 1/2
    >>> print(loss.round(4), np.log(8).round(4))
    2.0794 2.0794

    With β = (8, 0) in ln_f, h is (8, 0) in every row, and the loss stays what it is.  By (9.8)
    the row of a target gets ½ (1/8 − 1) · 8 + ½ (1/8) · 8 = −3, any other 2 · ½ (1/8) · 8 = 1:
    >>> parameters["ln_f.bias"][:] = 8, 0
    >>> gradients = gradients_of(parameters)
    >>> loss, nll = loss_and_gradients(parameters, batch, gradients)
    >>> print(loss.round(4), gradients["wte.weight"][:, 0].round(6))
    2.0794 [ 1.  1.  1. -3.  1.  1. -3.  1.]

Cost
    The blocks' 12·L·C² weights meet every row, but for 9·C² of the last block, which
    meet the R rows that the loss reads; the V·C of wte meet the M supervised triples.
    With 2 operations each forward and 4 backward:
    2·(12·L·C²·N − 9·C²·(N − R) + V·C·M) forward and twice that backward, plus attention's.
    Recomputation adds 8·C²·(L·N − (N − R)) and keeps 6 rows of C for each row and block, not 16.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from minigpt2.backend import Array, fusible
from minigpt2.model.batch import Batch
from minigpt2.model.block import Attend, block, block_backward
from minigpt2.model.gradients import Gradients, through_layer_norm
from minigpt2.model.parameters import Parameters
from minigpt2.ops.attention import attention
from minigpt2.ops.cross_entropy import cross_entropy, cross_entropy_gradient, weighted_sum
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
    *,
    drop: float = 0.0,
    rng: np.random.Generator | None = None,
    recompute: bool = False,
    keep_u: bool = False,
    attend: Attend | None = None,
    backward: bool = True,
    rows: Array | None = None,
) -> tuple[Array, Saved]:
    """Return the hidden rows h (N, C) of a batch; h @ wte.T are the logits.

    If only the rows `rows` (R,) of h are needed, each named once, only they are returned, (R, C).
    `drop` is the dropout rate, and `rng` draws the seeds of its masks; drop > 0 without one raises
    ValueError.  With `recompute` each block saves a Checkpoint, with `keep_u` a larger one; if no
    `backward` pass follows, none saves anything.  `attend` replaces attention: it is called with
    the layer's index and then with attention's arguments, and returns what attention returns.
    """
    config, p = parameters.config, parameters
    x, emb = embedding(p["wte.weight"], p["wpe.weight"], batch.ids, batch.positions)  # (16.1)
    x, emb_drop = dropout(x, drop, rng)  # (N, C)  (16.2)
    blocks = []
    for layer in range(config.n_layer):
        x, saved = block(
            x,
            batch.end,
            p.block(layer),
            n_head=config.n_head,
            divisor=config.divisor(layer),
            eps=config.layer_norm_epsilon,
            drop=drop,
            seed=int(rng.integers(2**63)) if drop and rng else 0,
            attend=partial(attend, layer) if attend else attention,
            recompute=recompute,
            keep_u=keep_u,
            backward=backward,
            rows=rows if layer == config.n_layer - 1 else None,
            lora_scale=parameters.lora_scale,
        )  # (16.3)
        blocks.append(saved)
    eps = config.layer_norm_epsilon
    h, ln_f = layer_norm(x, p["ln_f.weight"], p["ln_f.bias"], eps)  # (R, C)  (16.4)
    return h, Saved(emb, emb_drop, blocks, ln_f)


def gpt2_backward(dh: Array, saved: Saved, gradients: Gradients) -> None:
    """Turn dL/dh (R, C) into the gradient of every parameter, written or added to `gradients`.

    Uses `saved` up: what a block kept is freed as soon as its backward pass is done.
    """
    dx = through_layer_norm(dh, saved.ln_f, gradients, "ln_f")  # (R, C)  (16.7)
    for layer in reversed(range(len(saved.blocks))):
        dx = block_backward(dx, saved.blocks.pop(), gradients.block(layer))  # (16.8)
    de = dropout_backward(dx, saved.drop)  # (N, C)  (16.9)
    dwte, dwpe = gradients.sums("wte.weight"), gradients.sums("wpe.weight")
    embedding_backward(de, saved.embedding, dwte, dwpe)  # (16.10) (16.11)


def rows_read(batch: Batch) -> tuple[Array | None, Array]:
    """Return the rows of h that the loss reads (R,), and each triple's place among them (M,).

    If the loss reads all N rows, the first result is None.
    """
    rows, places = np.unique(batch.rows, return_inverse=True)  # (R,), (M,)
    return (None if len(rows) == len(batch.ids) else rows), places


class Hidden(NamedTuple):
    """The rows of h that the triples of a batch read, and which row each of them reads."""

    h: Array  # (R, C)
    places: Array  # (M,)
    saved: Saved  # for gpt2_backward


def forward(
    parameters: Parameters,
    batch: Batch,
    *,
    drop: float = 0.0,
    rng: np.random.Generator | None = None,
    recompute: bool = False,
    backward: bool = True,
) -> Hidden:
    """Run the blocks once, for any loss of the rows that a batch's triples read.

    The arguments are those of `gpt2`.
    """
    rows, places = rows_read(batch)
    h, saved = gpt2(
        parameters, batch, drop=drop, rng=rng, recompute=recompute, backward=backward, rows=rows
    )  # (R, C)  (16.4)
    return Hidden(h, places, saved)


def loss_of(parameters: Parameters, batch: Batch) -> tuple[Array, Array]:
    """Return the loss of a batch, and the negative log-likelihood of each triple (M,)."""
    h, places, _ = forward(parameters, batch, backward=False)  # (16.4)
    wte = parameters["wte.weight"]
    return cross_entropy(h, wte, places, batch.targets, batch.weights)  # (16.5)


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
    nll = nll_and_gradients(
        parameters, batch, gradients, drop=drop, rng=rng, recompute=recompute
    )  # (M,)
    return weighted_sum(batch.weights, nll), nll


@fusible
def nll_and_gradients(
    parameters: Parameters,
    batch: Batch,
    gradients: Gradients,
    *,
    drop: float = 0.0,
    rng: np.random.Generator | None = None,
    recompute: bool = False,
) -> Array:
    """Do what `loss_and_gradients` does, and return the nll (M,) alone."""
    rows, places = rows_read(batch)
    options = {"drop": drop, "rng": rng, "recompute": recompute}
    return both_passes(parameters, batch, gradients, rows, places, **options)


@fusible
def prepare(parameters: Parameters, batches: Sequence[Batch]) -> None:
    """Compute what a device will need of a step's batches; the ops on a CPU need nothing."""


def both_passes(
    parameters: Parameters,
    batch: Batch,
    gradients: Gradients,
    rows: Array | None,
    places: Array,
    **options: Any,
) -> Array:
    """Run both passes of a batch whose loss reads `rows` (R,) of h; return the nll (M,)."""
    h, saved = gpt2(parameters, batch, rows=rows, **options)  # (R, C)  (16.4)
    dwte, accumulate = gradients.claim("wte.weight")
    _, nll, dh = cross_entropy_gradient(
        h,
        parameters["wte.weight"],
        places,
        batch.targets,
        batch.weights,
        dwte,
        accumulate=accumulate,
    )  # (16.5) (16.6) (16.11)
    gpt2_backward(dh, saved, gradients)
    return nll
