"""Adapters: LoRA's matrices in a flat array of their own, for a model whose tensors are frozen.

Names
    h.0.attn.c_attn.lora_A (C, r)        belongs to h.0.attn.c_attn.weight (C, K)
    h.0.attn.c_attn.lora_B (r, K)
The flat array, its gradients and its moments have nothing but these.  So AdamW, the norm and a
checkpoint are those of a model of so many parameters, and the model below stays where it is.

A starts uniform between ±1/√C, where C counts the columns that it reads, and B with 0, as peft
starts them (the weights of a linear layer in PyTorch).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from minigpt2.backend import Array, flat_zeros
from minigpt2.model.config import GPT2Config
from minigpt2.model.layer import A, B
from minigpt2.model.parameters import Parameters, blocks_of, tensor_shapes
from minigpt2.ops.lora import merged, scale_of

LAYERS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")  # of a block, in its order


@dataclass(frozen=True)
class LoRA:
    """What adapters a model has.

    Raises ValueError for a rank below 1, an α that is not positive, and layers that are none.
    """

    rank: int  # r
    alpha: float  # α
    layers: tuple[str, ...] = LAYERS
    stabilised: bool = False  # whether the scale is α/√r

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise ValueError(f"the rank must be at least 1 and α above 0, not {self}")
        if not self.layers or not set(self.layers) <= set(LAYERS):
            raise ValueError(f"layers must be some of {', '.join(LAYERS)}, not {self.layers}")

    @property
    def scale(self) -> float:
        """The scale s of (11.3), or of (11.4)."""
        return scale_of(self.alpha, self.rank, self.stabilised)

    def shapes(self, config: GPT2Config) -> dict[str, tuple[int, ...]]:
        """Return the shape of each matrix by name, in the order of the forward pass."""
        weights, r = tensor_shapes(config), self.rank
        shapes: dict[str, tuple[int, ...]] = {}
        for block in range(config.n_layer):
            for layer in filter(self.layers.__contains__, LAYERS):
                name = f"h.{block}.{layer}"
                c, k = weights[f"{name}.weight"]
                shapes |= {f"{name}.{A}": (c, r), f"{name}.{B}": (r, k)}
        return shapes

    def n_parameters(self, config: GPT2Config) -> int:
        """Return how many numbers the adapters of a model have."""
        return sum(map(prod, self.shapes(config).values()))


class Origin(NamedTuple):
    """Which model adapters belong to: its name or path, and a checksum of its weights."""

    name: str = ""
    checksum: int | None = None


NOWHERE = Origin()


class Adapted(Parameters):
    """The parameters of a model, all frozen, with adapters (P,): `flat` has only these."""

    def __init__(self, base: Parameters, lora: LoRA, flat: Array, origin: Origin = NOWHERE):
        self.base, self.lora, self.origin = base, lora, origin
        self.config, self.parts, self.flat = base.config, base.parts, flat
        shapes = lora.shapes(base.config)
        own = Parameters(base.config, flat, shapes=shapes)
        self.frozen = frozenset(base.shapes)
        self.shapes = {**own.shapes, **base.shapes}
        self.views = {**own.views, **base.views}
        self.n_decayed, self.n_trainable = own.n_decayed, own.n_trainable
        self._blocks = blocks_of(self.views, base.config.n_layer)

    @property
    def lora_scale(self) -> float:
        """The factor s of what the adapters add."""
        return self.lora.scale

    @property
    def adapters(self) -> dict[str, Array]:
        """The matrices of the adapters, by name."""
        return {name: self.views[name] for name in self.trainable_names}

    def like(self, flat: Array) -> "Adapted":
        """Return other adapters (P,) of the same model."""
        return Adapted(self.base, self.lora, flat, self.origin)

    def astype(self, dtype: Any) -> "Adapted":
        """Return a copy in another type of number."""
        return Adapted(self.base.astype(dtype), self.lora, self.flat.astype(dtype), self.origin)

    def on(self, library: ModuleType) -> "Adapted":
        """Return the parameters as arrays of a library."""
        here = Parameters(self.config, self.flat, shapes=self.lora.shapes(self.config))
        return Adapted(self.base.on(library), self.lora, here.on(library).flat, self.origin)


def with_adapters(
    base: Parameters, lora: LoRA, rng: np.random.Generator, origin: Origin = NOWHERE
) -> Adapted:
    """Return a model, which stays as it is, with new adapters; `base` is on the host."""
    dtype = base.flat.dtype
    adapted = Adapted(base, lora, flat_zeros(lora.n_parameters(base.config), dtype), origin)
    for name, matrix in adapted.adapters.items():
        if name.endswith(A):
            bound = len(matrix) ** -0.5
            matrix[...] = rng.uniform(-bound, bound, matrix.shape)
    return adapted


class Merged(Mapping[str, Array]):
    """The tensors of an adapted model as one without adapters has them, each made when it is read.

    So no more than one of them exists twice.
    """

    def __init__(self, adapted: Adapted):
        self.adapted = adapted

    def __getitem__(self, name: str) -> Array:
        weight = self.adapted.base[name]
        layer = name.removesuffix(".weight")
        a, b = (self.adapted.views.get(f"{layer}.{part}") for part in (A, B))
        return weight if a is None else merged(weight, a, b, self.adapted.lora_scale)

    def __iter__(self) -> Iterator[str]:
        return iter(self.adapted.base.views)

    def __len__(self) -> int:
        return len(self.adapted.base.views)


def merge(adapted: Adapted) -> Parameters:
    """Return the model with its adapters merged into its weights (11.9), which are changed."""
    views = Merged(adapted)
    for name, view in adapted.base.views.items():
        if (tensor := views[name]) is not view:
            view[...] = tensor
    return adapted.base
