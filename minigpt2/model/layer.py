"""Layer: a linear map of a block by its name, with its adapter if it has one (ops/lora)."""

from collections.abc import Mapping
from typing import NamedTuple

from minigpt2.backend import Array
from minigpt2.ops import linear as linear_op
from minigpt2.ops import lora as lora_op
from minigpt2.ops.linear import linear
from minigpt2.ops.lora import lora, lora_input

A, B = "lora_A", "lora_B"  # end the names of the matrices that belong to a weight


class Saved(NamedTuple):
    """What the backward pass needs from the forward pass."""

    linear: linear_op.Saved
    lora: lora_op.Saved | None


def layer(
    x: Array,
    p: Mapping[str, Array],
    name: str,
    scale: float,
    *,
    biased: bool = True,
    residual: Array | None = None,
) -> tuple[Array, Saved]:
    """Return y (N, K) of the layer `name` of a block's tensors for x (N, C), and what it saves.

    `scale` is that of the adapters.  If it is not `biased`, the op that follows adds the bias.
    """
    bias = p[f"{name}.bias"] if biased else None
    y, saved = linear(x, p[f"{name}.weight"], bias, residual)
    if f"{name}.{A}" not in p:
        return y, Saved(saved, None)
    y, of_adapter = lora(x, y, p[f"{name}.{A}"], p[f"{name}.{B}"], scale)
    return y, Saved(saved, of_adapter)


def layer_input(
    x: Array, p: Mapping[str, Array], name: str, scale: float, *, biased: bool = True
) -> Saved:
    """Return what a layer saves of its input x (N, C), where its result is not needed."""
    saved = linear_op.Saved(x, p[f"{name}.weight"], biased)
    if f"{name}.{A}" not in p:
        return Saved(saved, None)
    return Saved(saved, lora_input(x, p[f"{name}.{A}"], p[f"{name}.{B}"], scale))
