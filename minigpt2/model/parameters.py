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

Initial values, as in GPT-2
    Matrices and embeddings are normal with standard deviation 0.02; biases are
    0 and γ is 1.  A block adds two branches to the residual stream, so the
    stream sums 2·L independent ones, and their variances add.  To make that sum
    as large as one branch, the projections that end a branch start smaller:
    σ′ = σ / √(2·L),  σ = 0.02                               (22.1)
    (Radford et al. 2019, section 2.3, for (22.1); 0.02 for both tables as in the
    Hugging Face release, whose files these are.)
"""

from math import prod, sqrt
from types import ModuleType

import numpy as np

from minigpt2.backend import Array, array_module
from minigpt2.model.config import GPT2Config

STD = 0.02


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


def initialise(
    config: GPT2Config, rng: np.random.Generator, dtype: type = np.float32, std: float = STD
) -> Parameters:
    """Draw the initial values of a GPT-2; std is the σ of what does not end a branch."""
    parameters = Parameters(config, np.zeros(config.n_parameters, dtype))
    for name, view in parameters.views.items():
        if view.ndim == 2:
            ends_branch = name.endswith("c_proj.weight")
            sigma = std / sqrt(2 * config.n_layer) if ends_branch else std  # (22.1)
            view[...] = sigma * rng.standard_normal(view.shape, np.float32)
        elif name.endswith("weight"):
            view[...] = 1
    return parameters
