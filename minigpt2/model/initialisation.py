"""Initialisation: the random values that training from scratch starts from.

Definition, as in GPT-2
    Matrices and embeddings are normal with standard deviation 0.02; biases are
    0 and γ is 1.  A block adds two branches to the residual stream, so the
    stream sums 2·L independent ones, and their variances add.  To make that sum
    as large as one branch, the projections that end a branch start smaller:
    σ′ = σ / √(2·L),  σ = 0.02                               (14.1)
    (Radford et al. 2019, section 2.3, for (14.1); 0.02 for both tables as in the
    Hugging Face release, whose files these are.)

Example: with 8 blocks, √(2·L) = 4
    >>> config = GPT2Config(vocab_size=500, n_positions=64, n_embd=128, n_layer=8, n_head=4)
    >>> p = initialise(config, np.random.default_rng(0))
    >>> for name in ("h.0.attn.c_attn.weight", "h.0.attn.c_proj.weight"):
    ...     print(name, p[name].std().round(3))
    h.0.attn.c_attn.weight 0.02
    h.0.attn.c_proj.weight 0.005
"""

from math import sqrt

import numpy as np

from minigpt2.backend import flat_zeros
from minigpt2.memory import require_memory
from minigpt2.model.config import GPT2Config
from minigpt2.model.parameters import Parameters
from minigpt2.wording import plural

STD = 0.02


def initialise(
    config: GPT2Config, rng: np.random.Generator, dtype: type = np.float32, std: float = STD
) -> Parameters:
    """Draw the initial values of a GPT-2; std is the σ of what does not end a branch.

    Raises UserError, at once, if they need more memory than the machine has.
    """
    bytes_needed = config.n_parameters * np.dtype(dtype).itemsize
    require_memory(bytes_needed, f"a model of {plural(config.n_parameters, 'parameter')}")
    parameters = Parameters(config, flat_zeros(config.n_parameters, dtype))
    for name, view in parameters.views.items():
        if view.ndim == 2:
            ends_branch = name.endswith("c_proj.weight")
            sigma = std / sqrt(2 * config.n_layer) if ends_branch else std  # (14.1)
            view[...] = sigma * rng.standard_normal(view.shape, np.float32)
        elif name.endswith("weight"):
            view[...] = 1
    return parameters
