"""Parameters: one flat array, with a named view for each tensor.

Why
    The optimiser, the global norm, an all-reduce and a checkpoint treat all
    parameters alike, so they are one array.  The model wants tensors with
    shapes, so each has a view into it under its official name; views and flat
    array share memory.  Gradients and both AdamW moments have the same layout.

Layout
    Tensors with two axes come first: these are decayed by AdamW, and they are
    flat[:n_decayed].  Then come those with one axis, the biases and layer
    normalisations, up to flat[:n_trainable].  Frozen tensors come last: they have no
    gradient and no moments.  In each part the order is that of the forward pass.
"""

from collections.abc import Collection, Mapping
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from minigpt2.backend import Array, array_module
from minigpt2.model.config import GPT2Config
from minigpt2.wording import plural

Shapes = Mapping[str, tuple[int, ...]]


def tensor_shapes(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by official name, in the layout's order."""
    c = config.n_embd
    block = {
        "ln_1.weight": (c,),
        "ln_1.bias": (c,),
        "attn.c_attn.weight": (c, 3 * c),
        "attn.c_attn.bias": (3 * c,),
        "attn.c_proj.weight": (c, c),
        "attn.c_proj.bias": (c,),
        "ln_2.weight": (c,),
        "ln_2.bias": (c,),
        "mlp.c_fc.weight": (c, 4 * c),
        "mlp.c_fc.bias": (4 * c,),
        "mlp.c_proj.weight": (4 * c, c),
        "mlp.c_proj.bias": (c,),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocab_size, c),
        "wpe.weight": (config.n_positions, c),
    }
    for i in range(config.n_layer):
        shapes |= {f"h.{i}.{name}": shape for name, shape in block.items()}
    return in_layout(shapes | {"ln_f.weight": (c,), "ln_f.bias": (c,)})


def in_layout(shapes: Shapes, frozen: Collection[str] = ()) -> dict[str, tuple[int, ...]]:
    """Return a table of shapes in the layout's order.  Raises ValueError for unknown names."""
    if unknown := sorted(set(frozen) - set(shapes)):
        raise ValueError(f"no tensor is called {', '.join(unknown)}, so none can be frozen")
    return dict(sorted(shapes.items(), key=lambda item: (item[0] in frozen, len(item[1]) < 2)))


def blocks_of(views: Mapping[str, Array], n_layer: int) -> list[dict[str, Array]]:
    """Return the views of each block under their names within the block."""
    blocks: list[dict[str, Array]] = [{} for _ in range(n_layer)]
    for name, view in views.items():
        if name.startswith("h."):
            _, block, within = name.split(".", 2)
            blocks[int(block)][within] = view
    return blocks


class Parameters:
    """A flat array (P,) and its named views: `parameters["h.0.attn.c_attn.weight"]`.

    `shapes` is the table of tensors, by default a GPT-2's; another head or an adapter is one more
    entry.  Those named in `frozen` are not trained.  `parts` has the configuration of tensors whose
    names begin with a prefix, if they are a model of another shape (model/heads).  Raises
    ValueError if `flat` does not have as many elements as the table, or a frozen name is not in it.
    """

    def __init__(
        self,
        config: GPT2Config,
        flat: Array,
        *,
        shapes: Shapes | None = None,
        frozen: Collection[str] = (),
        parts: Mapping[str, GPT2Config] | None = None,
    ):
        self.config = config
        self.parts = dict(parts or {})
        self.flat = flat
        self.frozen = frozenset(frozen)
        self.shapes = in_layout(tensor_shapes(config) if shapes is None else shapes, self.frozen)
        self.views: dict[str, Array] = {}
        start = self.n_decayed = self.n_trainable = 0
        for name, shape in self.shapes.items():
            stop = start + prod(shape)
            self.views[name] = flat[start:stop].reshape(shape)
            if name not in self.frozen:
                self.n_trainable = stop
                self.n_decayed = stop if len(shape) == 2 else self.n_decayed
            start = stop
        if flat.shape != (start,):
            raise ValueError(
                f"{config} needs {plural(start, 'parameter')}; the array is {flat.shape}"
            )
        self._blocks = blocks_of(self.views, config.n_layer)

    def __getitem__(self, name: str) -> Array:
        return self.views[name]

    @property
    def lora_scale(self) -> float:
        """The factor s of what adapters add (ops/lora); without adapters nobody reads it."""
        return 0.0

    def block(self, i: int) -> dict[str, Array]:
        """Return the views of block i under their names within the block."""
        return self._blocks[i]

    @property
    def trainable(self) -> Array:
        """The part of the flat array that is trained."""
        return self.flat[: self.n_trainable]

    @property
    def trainable_names(self) -> list[str]:
        """The names of the tensors that are trained, in the layout's order."""
        return [name for name in self.shapes if name not in self.frozen]

    def like(self, flat: Array) -> "Parameters":
        """Return another flat array with the same tensors."""
        return Parameters(
            self.config, flat, shapes=self.shapes, frozen=self.frozen, parts=self.parts
        )

    def astype(self, dtype: Any) -> "Parameters":
        """Return a copy in another type of number."""
        return self.like(self.flat.astype(dtype))

    def on(self, library: ModuleType) -> "Parameters":
        """Return the parameters as arrays of a library: themselves, or a copy on its device."""
        here = array_module(self.flat)
        if here is library:
            return self
        to = here.asnumpy if library is np else library.asarray
        return self.like(to(self.flat))
