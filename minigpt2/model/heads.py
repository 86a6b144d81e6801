"""Heads: one number for each hidden row, from tensors with a GPT-2's in one flat array.

The score of a reward model and a value function are linear maps of a row of h to one number,
    v = h · w + b
This is (2.1) with K = 1, so dh = dv w (2.2), dw = Σ dv h (2.3) and db = Σ dv (2.4).  A triple of a
batch says by its row which row of h is read; its target and its weight do not matter.

Names
    score.weight (1, C)             of a reward model; it has no bias
    value.head.weight (1, C)        of a value function, on the policy's own rows
    value.head.bias (1,)            and the constant of that function
    value.wte.weight, ...           of a value function with a GPT-2 of its own, of any shape
A head is one more entry in the table of tensors: one AdamW trains it with the rest, and it has its
place in the gradients, the moments and a checkpoint.
"""

from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from minigpt2.backend import Array, accumulation_dtype, array_module, to_host
from minigpt2.model.batch import Batch
from minigpt2.model.config import GPT2Config
from minigpt2.model.gpt2 import forward, gpt2_backward
from minigpt2.model.gradients import Gradients
from minigpt2.model.parameters import Parameters, blocks_of
from minigpt2.ops.embedding import scatter_add, take_rows

SCORE = "score"  # of a reward model
VALUE = "value."  # begins the name of every tensor of a value function
VALUE_HEAD = f"{VALUE}head"


def with_heads(
    parameters: Parameters,
    tensors: Mapping[str, Array],
    parts: Mapping[str, GPT2Config] | None = None,
) -> Parameters:
    """Return the parameters with more tensors, in one new flat array.

    The new ones follow the others of their kind in the layout: one with two axes is decayed.
    `parts` has the configuration of each prefix whose tensors are a model.  Raises ValueError for a
    name that is taken.
    """
    if taken := sorted(set(tensors) & set(parameters.shapes)):
        raise ValueError(f"there is a tensor {taken[0]} already")
    shapes = dict(parameters.shapes) | {name: view.shape for name, view in tensors.items()}
    flat = array_module(parameters).empty_like(
        parameters.flat, shape=(sum(map(prod, shapes.values())),)
    )
    result = Parameters(
        parameters.config,
        flat,
        shapes=shapes,
        frozen=parameters.frozen,
        parts={**parameters.parts, **(parts or {})},
    )
    for name, view in {**parameters.views, **tensors}.items():
        result[name][...] = view
    return result


class Part(Parameters):
    """The tensors whose names begin with a prefix, under the rest of their names.

    They are a model, for a forward and a backward pass.  The optimiser knows the whole only: `flat`
    is all of its array, in which these are not neighbours.
    """

    def __init__(self, whole: Parameters, prefix: str):
        self.config = whole.parts.get(prefix, whole.config)
        self.flat, self.frozen, self.parts = whole.flat, whole.frozen, {}
        own = [name for name in whole.views if name.startswith(prefix)]
        self.views = {name.removeprefix(prefix): whole[name] for name in own}
        self.shapes = {name: view.shape for name, view in self.views.items()}
        self._blocks = blocks_of(self.views, self.config.n_layer)


def part(parameters: Parameters, prefix: str) -> Parameters:
    """Return the tensors whose names begin with a prefix, under the rest of their names.

    `Gradients.part` returns their gradients.
    """
    return Part(parameters, prefix)


def value_tensors(parameters: Parameters) -> dict[str, Array]:
    """Return the tensors of a value function by their names; none if there is none."""
    return {name: view for name, view in parameters.views.items() if name.startswith(VALUE)}


def read_head(h: Array, places: Array, parameters: Parameters, name: str) -> Array:
    """Return the numbers v (M,) of a head for the rows `places` (M,) of h (R, C)."""
    dtype = accumulation_dtype(h.dtype)
    rows = take_rows(h, places).astype(dtype, copy=False)  # (M, C)
    v = rows @ parameters[f"{name}.weight"][0].astype(dtype, copy=False)  # (M,)  (2.1)
    bias = parameters.views.get(f"{name}.bias")
    return v if bias is None else v + bias.astype(dtype, copy=False)  # (M,)  (2.1)


def read_head_backward(
    dv: Array, h: Array, places: Array, parameters: Parameters, name: str, gradients: Gradients
) -> Array:
    """Turn dL/dv (M,), which may be on the host, into dL/dh (R, C); dL/dw and dL/db are added.

    In `gradients` a head must come after the projection: that may write over what follows wte.
    """
    xp, dtype = array_module(h), accumulation_dtype(h.dtype)
    dv = xp.asarray(dv, dtype)  # (M,)
    if (dw := gradients.sums(f"{name}.weight")) is not None:
        dw += (dv @ take_rows(h, places).astype(dtype, copy=False))[None]  # (1, C)  (2.3)
    if f"{name}.bias" in parameters.views:
        db = gradients.sums(f"{name}.bias")
        if db is not None:
            db += dv.sum()  # (2.4)
    w = parameters[f"{name}.weight"].astype(dtype, copy=False)  # (1, C)
    dh = scatter_add(dv[:, None] * w, places, len(h))  # (R, C)  (2.2)
    return dh.astype(h.dtype, copy=False)


def head_values(parameters: Parameters, batch: Batch, name: str) -> Array:
    """Return a head's numbers (M,) for the rows of a batch's triples, in float64 on the host."""
    h, places, _ = forward(parameters, batch, backward=False)
    return wide_on_host(read_head(h, places, parameters, name))  # (M,)


def head_gradients(
    parameters: Parameters,
    batch: Batch,
    gradients: Gradients,
    derivative: Callable[[Array], Array],
    name: str,
    *,
    drop: float = 0.0,
    rng: np.random.Generator | None = None,
    recompute: bool = False,
) -> Array:
    """Write or add the gradients of a loss of a head's numbers; return them, (M,), on the host.

    `derivative` is called once, with the numbers v (M,) in float64, and returns dL/dv (M,), times
    the loss scale.  Where it is 0 everywhere, nothing is written.
    """
    h, places, saved = forward(parameters, batch, drop=drop, rng=rng, recompute=recompute)
    v = wide_on_host(read_head(h, places, parameters, name))  # (M,)
    dv = derivative(v)  # (M,)
    if dv.any():
        dh = read_head_backward(dv, h, places, parameters, name, gradients)  # (R, C)
        gpt2_backward(dh, saved, gradients)
    return v


def wide_on_host(values: Array) -> Array:
    """Return numbers (M,) on the host in float64, or complex as they are."""
    (on_host,) = to_host(values)
    return on_host.astype(np.result_type(on_host, np.float64))  # (M,)
