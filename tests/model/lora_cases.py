"""Adapters in the whole model, and the mistakes that a person would make with them.

The right gradients have another witness than the numerical ones: those of the merged model, by
(11.9).
"""

from functools import partial

import numpy as np

from minigpt2.model.adapters import LAYERS, Adapted, LoRA, Merged
from minigpt2.model.gpt2 import loss_and_gradients, loss_of
from minigpt2.model.gradients import gradients_of
from minigpt2.model.parameters import Parameters
from tests.gradients import Case
from tests.model.cases import BATCHES, CONFIG, FIXED, SIZES, drawn, or_none, remembered

R = 3
SIZES = SIZES | {"r": R}
LORA = LoRA(rank=R, alpha=2.0)
SHAPES = LORA.shapes(CONFIG)
FEW = LoRA(rank=1, alpha=0.5, layers=("attn.c_attn", "mlp.c_proj"), stabilised=True)


def adapted_by(lora, tensors):
    """The model with these adapters."""
    flat = np.concatenate([tensor.ravel() for tensor in tensors])
    return Adapted(FIXED.astype(flat.dtype), lora, flat)


def whole(adapted):
    """The merged model."""
    flat = np.concatenate([Merged(adapted)[name].ravel() for name in FIXED.shapes])
    return Parameters(CONFIG, flat)


def loss(lora, *tensors):
    """The weighted cross-entropy of both micro-batches."""
    return sum(loss_of(adapted_by(lora, tensors), batch)[0] for batch in BATCHES)


def gradients(lora, dy, tensors, recompute=False):
    """The gradients of the adapters."""
    adapted = adapted_by(lora, tensors)
    total = gradients_of(adapted)
    for batch in BATCHES:
        loss_and_gradients(adapted, batch, total, recompute=recompute)
    return tuple(dy * view for view in total.views.values())


def broken(lora, change):
    """The gradients that follow from those of the merged model by a rule that is wrong."""

    def backward(dy, tensors):
        adapted = adapted_by(lora, tensors)
        total = gradients_of(model := whole(adapted))
        for batch in BATCHES:
            loss_and_gradients(model, batch, total)
        results = []
        for name in lora.shapes(CONFIG):
            layer, part = name.rsplit(".", 1)
            a, b = adapted[f"{layer}.lora_A"], adapted[f"{layer}.lora_B"]
            dw = dy * total[f"{layer}.weight"]
            results.append(change(part, layer, dw, a, b, lora.scale))
        return or_none(gradients(lora, dy, tensors), results)

    return remembered(backward)


def by_product_rule(part, layer, dw, a, b, s):
    """dA and dB of (11.9)."""
    return s * dw @ b.T if part == "lora_A" else s * a.T @ dw


def scaled(factor, layers=LAYERS):
    """The right gradients times a factor, in some layers."""

    def change(part, layer, dw, a, b, s):
        right = by_product_rule(part, layer, dw, a, b, s)
        return factor(s) * right if layer.endswith(layers) else right

    return change


CASES = tuple(
    Case(
        name,
        partial(loss, lora),
        partial(gradients, lora, recompute=recompute),
        {n: partial(drawn, n, shape) for n, shape in lora.shapes(CONFIG).items()},
        {
            "s left out": broken(lora, scaled(lambda s: 1 / s)),
            "s twice": broken(lora, scaled(lambda s: s)),
            "attention's layers forgotten": broken(lora, scaled(lambda s: 0, LAYERS[:2])),
            "the MLP's layers forgotten": broken(lora, scaled(lambda s: 0, LAYERS[2:])),
        },
    )
    for name, lora, recompute in (("adapters", LORA, False), ("adapters of two layers", FEW, True))
)
