"""Fused ops: the functions that replace an op's formula where its arrays are on a device.

Each function has its op's name, arguments and results; `backend.fusible` calls it in place of the
op.  The op's chapter has the derivation, the kernel's file in kernels/ the launch shape and the
memory traffic.  Results are allocated with `empty`, which takes CuPy half the time of
`empty_like`: a kernel writes every element of its results.

A function returns NotImplemented where no kernel fits: for attention with dropout, and for sizes
that no kernel is compiled for.  Then the op's formula runs, on the device's arrays.
"""

from collections.abc import Callable
from typing import Any

from minigpt2.backend import Array, array_module
from minigpt2.device.decoding import decoder_of, store_rows
from minigpt2.device.fused_attention import attention, attention_backward
from minigpt2.device.fused_columns import column_sums
from minigpt2.device.fused_cross_entropy import nll_and_dlogits, nll_from_logits
from minigpt2.device.fused_gelu import gelu, gelu_backward
from minigpt2.device.fused_layer_norm import layer_norm, layer_norm_backward
from minigpt2.device.fused_linear import affine, linear_backward
from minigpt2.device.fused_lora import lora, lora_backward, lora_input
from minigpt2.device.fused_loss import cross_entropy as cross_entropy_loss
from minigpt2.device.fused_loss import cross_entropy_gradient
from minigpt2.device.fused_rows import add_at, embedding, scatter_rows, take_rows
from minigpt2.device.launch import launch
from minigpt2.inference import generate as generate_op
from minigpt2.inference import kv_cache as cache_op
from minigpt2.ops import adamw as adamw_op
from minigpt2.ops import attention as attention_op
from minigpt2.ops import cross_entropy as cross_entropy_op
from minigpt2.ops import embedding as embedding_op
from minigpt2.ops import gelu as gelu_op
from minigpt2.ops import layer_norm as layer_norm_op
from minigpt2.ops import linear as linear_op
from minigpt2.ops import lora as lora_op

NORM_BLOCKS = 512  # BLOCKS of grad_norm.cu


def global_norm(g: Array) -> Array:
    """Return the norm of g (P,) as an array (1,), (10.1)."""
    xp = array_module(g)
    partial, result = xp.empty(NORM_BLOCKS, xp.float32), xp.empty(1, xp.float32)
    launch(xp, "squares", g, partial)
    launch(xp, "global_norm", partial, result)
    return result


def adamw_flat(
    theta: Array,
    g: Array,
    m: Array,
    v: Array,
    update: adamw_op.Update,
    *,
    copy: Array | None = None,
) -> Array:
    """Update all parameters if the gradient is finite; return its norm as an array (1,)."""
    xp, norm, constants = array_module(theta), global_norm(g), update.constants
    beta1, beta2, eta = constants.beta1, constants.beta2, update.learning_rate
    numbers = {
        "decayed": update.n_decayed,
        "clip": constants.clip,
        "unscale": 1 / update.loss_scale,
        "beta1": beta1,
        "one_minus_beta1": 1 - beta1,
        "beta2": beta2,
        "one_minus_beta2": 1 - beta2,
        "eta_hat": eta / (1 - beta1**update.step),
        "root_correction": 1 / (1 - beta2**update.step),
        "eps": constants.eps,
        "keep": 1 - eta * constants.weight_decay,
    }
    launch(xp, "adamw", theta, g, m, v, copy, norm, **numbers)
    return norm


FUSED: dict[Callable[..., Any], Callable[..., Any]] = {
    embedding_op.embedding: embedding,
    embedding_op.add_at: add_at,
    embedding_op.scatter_rows: scatter_rows,
    embedding_op.take_rows: take_rows,
    linear_op.column_sums: column_sums,
    layer_norm_op.layer_norm: layer_norm,
    layer_norm_op.layer_norm_backward: layer_norm_backward,
    linear_op.affine: affine,
    linear_op.linear_backward: linear_backward,
    lora_op.lora: lora,
    lora_op.lora_input: lora_input,
    lora_op.lora_backward: lora_backward,
    gelu_op.gelu: gelu,
    gelu_op.gelu_backward: gelu_backward,
    attention_op.attention: attention,
    attention_op.attention_backward: attention_backward,
    cross_entropy_op.cross_entropy: cross_entropy_loss,
    cross_entropy_op.cross_entropy_gradient: cross_entropy_gradient,
    cross_entropy_op.nll_from_logits: nll_from_logits,
    cross_entropy_op.nll_and_dlogits: nll_and_dlogits,
    adamw_op.adamw_flat: adamw_flat,
    cache_op.store_rows: store_rows,
    generate_op.decoder_of: decoder_of,
}
