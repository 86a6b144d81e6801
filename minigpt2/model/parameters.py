"""Parameters: one flat array, with a named view for each tensor.

Why
    The optimiser, the global norm, an all-reduce and a checkpoint treat all
    parameters alike, so they are one array.  The model wants tensors with
    shapes, so each has a view into it under its official name; views and flat
    array share memory.  Gradients and both AdamW moments have the same layout.

Layout
    Tensors with two axes come first: these are decayed by AdamW, and they are
    flat[:n_decayed].  Then come those with one axis, the biases and layer
    normalisations.  In each part the order is that of the forward pass.
"""

from math import prod
from types import ModuleType

import numpy as np

from minigpt2.backend import Array, array_module
from minigpt2.model.config import GPT2Config


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
    shapes |= {"ln_f.weight": (c,), "ln_f.bias": (c,)}
    return dict(sorted(shapes.items(), key=lambda item: len(item[1]) < 2))


class Parameters:
    """A flat array (P,) and its named views: `parameters["h.0.attn.c_attn.weight"]`."""

    def __init__(self, config: GPT2Config, flat: Array):
        self.config = config
        self.flat = flat
        self.views: dict[str, Array] = {}
        start = self.n_decayed = 0
        for name, shape in tensor_shapes(config).items():
            stop = start + prod(shape)
            self.views[name] = flat[start:stop].reshape(shape)
            if len(shape) == 2:
                self.n_decayed = stop
            start = stop
        if flat.shape != (start,):
            raise ValueError(f"{config} needs {start:,} parameters; the array is {flat.shape}")
        self._blocks = [self._block(i) for i in range(config.n_layer)]

    def _block(self, i: int) -> dict[str, Array]:
        prefix = f"h.{i}."
        return {n[len(prefix) :]: v for n, v in self.views.items() if n.startswith(prefix)}

    def __getitem__(self, name: str) -> Array:
        return self.views[name]

    def block(self, i: int) -> dict[str, Array]:
        """Return the views of block i under their names within the block."""
        return self._blocks[i]

    def on(self, library: ModuleType) -> "Parameters":
        """Return the parameters as arrays of a library: themselves, or a copy on its device."""
        here = array_module(self.flat)
        if here is library:
            return self
        to = here.asnumpy if library is np else library.asarray
        return Parameters(self.config, to(self.flat))

    def zeros_like(self) -> "Parameters":
        """Return zeros with the same layout: gradients, or a moment."""
        return Parameters(self.config, array_module(self.flat).zeros_like(self.flat))
