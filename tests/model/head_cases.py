"""Heads on the rows of a forest, and the mistakes that a person would make in their backward."""

from functools import partial

import numpy as np

from minigpt2.model.gpt2 import forward, gpt2_backward
from minigpt2.model.gradients import gradients_of
from minigpt2.model.heads import (
    SCORE,
    VALUE,
    VALUE_HEAD,
    head_gradients,
    head_values,
    part,
    read_head_backward,
    with_heads,
)
from tests.gradients import Case
from tests.model.cases import BATCHES, FIXED, C, makers, or_none, remembered
from tests.model.cases import SIZES as SIZES

ON_POLICY = {f"{VALUE_HEAD}.weight": (1, C), f"{VALUE_HEAD}.bias": (1,)}
BODY = {name: FIXED[name].shape for name in ("wte.weight", "h.1.mlp.c_fc.weight", "ln_f.bias")}
APART = {f"{VALUE}{name}": shape for name, shape in BODY.items()}


def with_tensors(names, tensors):
    """A model with a value function of its own, in which these tensors are given."""
    heads = {f"{VALUE}{name}": view[::-1] for name, view in FIXED.views.items()}
    heads |= {name: np.ones(shape) for name, shape in {**ON_POLICY, "score.weight": (1, C)}.items()}
    kind = np.result_type(*tensors)
    whole = with_heads(FIXED.like(FIXED.flat.astype(kind)), heads)
    for name, tensor in zip(names, tensors, strict=True):
        whole[name][...] = tensor
    return whole


def smooth(v):
    """A smooth loss in which the numbers of a batch meet."""
    return np.sin(v).sum() + v[0] * v[-1] * v.sum()


def slope(v):
    """Its derivative."""
    d = np.cos(v) + v[0] * v[-1]
    d[0] += v[-1] * v.sum()
    d[-1] += v[0] * v.sum()
    return d


def loss(names, prefix, head, *tensors):
    """The smooth loss of both micro-batches."""
    model = part(with_tensors(names, tensors), prefix)
    return np.sum([smooth(head_values(model, batch, head)) for batch in BATCHES])


def gradients(names, prefix, head, dy, tensors):
    """Its gradients."""
    whole = with_tensors(names, tensors)
    total = gradients_of(whole)
    for batch in BATCHES:
        into = part(whole, prefix), batch, total.part(prefix)
        head_gradients(*into, lambda v: dy * slope(v), head)
    return tuple(total[name] for name in names)


def broken(names, prefix, head, place=0, scale=1.0, written=False, body=True, mean=False):
    """The backward pass with switches."""

    def backward(dy, tensors):
        whole = with_tensors(names, tensors)
        total, model = gradients_of(whole), part(whole, prefix)
        for batch in BATCHES:
            own = total.part(prefix)
            h, places, saved = forward(model, batch)
            dv = scale * dy * slope(head_values(model, batch, head))
            dv = dv / len(dv) if mean else dv
            if written:
                total.clear()
            places = (places + place) % len(h)
            dh = read_head_backward(dv, h, places, model, head, own)
            gpt2_backward(dh if body else np.zeros_like(dh), saved, own)
        right = gradients(names, prefix, head, dy, tensors)
        return or_none(right, [total[name] for name in names])

    return remembered(backward)


def case_of(name, shapes, prefix, head):
    """A case of a head; a prefix is that of its model."""
    of = list(shapes), prefix, head
    return Case(
        name,
        partial(loss, *of),
        partial(gradients, *of),
        makers(shapes),
        {
            "read one row late": broken(*of, place=1),
            "read one row early": broken(*of, place=-1),
            "the sign": broken(*of, scale=-1),
            "mean for sum": broken(*of, mean=True),
            "written instead of added": broken(*of, written=True),
            "the blocks get nothing": broken(*of, body=False),
        },
    )


CASES = (
    case_of("heads, score", {**BODY, f"{SCORE}.weight": (1, C)}, "", SCORE),
    case_of("heads, on policy", {**BODY, **ON_POLICY}, "", VALUE_HEAD),
    case_of("heads, apart", {**APART, **ON_POLICY}, VALUE, "head"),
)
