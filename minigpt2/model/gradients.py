"""Gradients: one flat array laid out like the parameters, and one rule for writing to it.

Why
    A tensor's gradient is a sum: over the places where the model uses the tensor (wte is used
    twice, (16.11)) and over the micro-batches of a step.  Clearing the whole array first and adding
    everything to it would be simple, and would cost a tenth of a small batch's memory traffic.

Rule, the same for every tensor
    The first gradient of a step is written over what the tensor holds, each later one is added.
    `clear` begins a step, and costs nothing; `complete` ends it: a tensor that received no
    gradient becomes 0.  What an op must know is one argument: the array that it may write its
    result to, or whether it has to accumulate.

A frozen tensor has no gradient: nothing is computed for it, and nothing stored.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from minigpt2.backend import Array, Target, array_module, flat_zeros
from minigpt2.model.layer import A, B
from minigpt2.model.layer import Saved as SavedByLayer
from minigpt2.model.parameters import Parameters
from minigpt2.ops.gelu import gelu_backward
from minigpt2.ops.layer_norm import layer_norm_backward
from minigpt2.ops.linear import linear_backward
from minigpt2.ops.lora import lora_backward


class Gradients:
    """The gradients of named tensors, gathered one after the other.

    `views` maps names to arrays; `flat` is the one array behind them, where there is one.  Names
    are relative to `prefix`, so that a block knows its tensors without its number.
    """

    def __init__(
        self,
        views: Mapping[str, Array],
        flat: Array = None,
        *,
        prefix: str = "",
        holding: set[str] | None = None,
    ):
        self.views = views
        self.flat = flat
        self._prefix = prefix
        self._holding = set() if holding is None else holding  # tensors with a gradient

    def __getitem__(self, name: str) -> Array:
        return self.views[self._prefix + name]

    def part(self, prefix: str) -> "Gradients":
        """Return the gradients whose names begin with a prefix, under the rest of their names."""
        return Gradients(self.views, prefix=self._prefix + prefix, holding=self._holding)

    def block(self, i: int) -> "Gradients":
        """Return the gradients of block i, under their names within the block."""
        return self.part(f"h.{i}.")

    def trains(self, name: str) -> bool:
        """Whether a tensor has a gradient: it is not frozen."""
        return self._prefix + name in self.views

    @property
    def holding(self) -> frozenset[str]:
        """The tensors that hold a gradient of this step."""
        return frozenset(self._holding)

    def hold(self, names: Iterable[str]) -> None:
        """Note that these tensors hold a gradient now."""
        self._holding.update(names)

    def clear(self) -> None:
        """Begin a step: from here on no tensor holds a gradient."""
        self._holding.clear()

    def complete(self) -> None:
        """End a step: what received no gradient becomes 0."""
        for name, view in self.views.items():
            if name not in self._holding:
                view.fill(0)

    def target(self, name: str) -> Target | None:
        """Return where an op puts a tensor's gradient; None if the tensor is frozen."""
        view, accumulate = self.claim(name)
        return None if view is None else Target(view, accumulate)

    def claim(self, name: str) -> tuple[Array, bool]:
        """Return a tensor's array, None if frozen, and whether its op must accumulate there.

        From here on the tensor holds a gradient.
        """
        name = self._prefix + name
        accumulate = name in self._holding
        self._holding.add(name)
        return self.views.get(name), accumulate

    def sums(self, name: str) -> Array | None:
        """Return a tensor's array, None if frozen, for an op that can only add to it."""
        view, accumulate = self.claim(name)
        if view is not None and not accumulate:
            view.fill(0)
        return view


def gradients_of(parameters: Parameters) -> Gradients:
    """Return gradients, all 0, for every parameter that is not frozen."""
    theta = parameters.trainable
    flat = flat_zeros(theta.size, theta.dtype, array_module(theta))
    shapes = {name: parameters.shapes[name] for name in parameters.trainable_names}
    return Gradients(Parameters(parameters.config, flat, shapes=shapes).views, flat)


def through_linear(dy: Array, saved: SavedByLayer, d: Gradients, name: str) -> Array:
    """Return dL/dx of a linear layer; its dL/dw and dL/db, or those of its adapter, go to d."""
    weight, bias = f"{name}.weight", f"{name}.bias"
    trains = d.trains(weight) or d.trains(bias)
    into = d.target(bias) if saved.linear.biased else None
    dx, _, _ = linear_backward(dy, saved.linear, weight=d.target(weight), bias=into, trains=trains)
    if saved.lora:
        a, b = d.target(f"{name}.{A}"), d.target(f"{name}.{B}")
        dx, _, _ = lora_backward(dy, saved.lora, dx, a=a, b=b)
    return dx


def through_gelu(dy: Array, saved: Any, d: Gradients, bias: str) -> Array:
    """Return dL/dh of a GELU that added the bias of the layer before it; its dL/db goes to d."""
    dh, _ = gelu_backward(dy, saved, bias=d.target(bias))
    return dh


def through_layer_norm(
    dy: Array, saved: Any, d: Gradients, name: str, *, d_residual: Array | None = None
) -> Array:
    """Return dL/dx of a layer normalisation; its dL/dgamma and dL/dbeta go to d."""
    weight, bias = d.target(f"{name}.weight"), d.target(f"{name}.bias")
    dx, _, _ = layer_norm_backward(dy, saved, d_residual=d_residual, weight=weight, bias=bias)
    return dx
