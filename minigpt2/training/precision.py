"""Precision: computing in 16 bits, learning in 32.

Why
    A GPU multiplies numbers of 16 bits many times faster than those of 32, and
    moves twice as many in the same time.  But a step of the optimiser is small
    beside the weight that it changes: with the 8 or 11 bits of fraction of a short
    number, most steps would be rounded away.  So the weights, the gradients' sums
    and both moments stay in float32, and the model computes with a rounded copy of
    the weights that AdamW writes along with them.  (Micikevicius et al. 2018,
    sections 3.1 and 3.3.)

Two short numbers
    bfloat16 has float32's range and 8 bits.  float16 has 11 bits, and ends at
    6·10⁻⁸: a good part of all gradients is smaller.

Loss scaling, for float16
    The gradient is linear in the loss, so every number on the way back is made S
    times as large by
    ℒ_S = S ℒ                                                      (17.1)
    and AdamW divides the gradient by S again.  (Ibid., section 3.2.)  As large an S
    as possible is best; it is too large where something overflows.  So S begins
    large and is found on the way: a step whose gradient is not finite is not taken,
    and
    S ← S / 2                                                      (17.2)
    and after 2,000 steps without one
    S ← 2 S                                                        (17.3)
    S is a power of two, so that scaling rounds nothing.
"""

from typing import Any, Literal

import numpy as np

from minigpt2.errors import UserError
from minigpt2.model.parameters import Parameters

Precision = Literal["float32", "bfloat16", "float16"]
FIRST_SCALE = 2.0**16
PATIENCE = 2000  # steps


def short_type(precision: Precision) -> Any:
    """Return the type of numbers that the model computes with.

    Raises UserError if the package that brings bfloat16 is not installed.
    """
    if precision != "bfloat16":
        return np.dtype(precision).type
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        raise UserError("--precision bfloat16 needs ml_dtypes: pip install ml_dtypes") from None
    return bfloat16


class Scale:
    """S of (17.1): 1 but for float16."""

    def __init__(self, precision: Precision):
        self.moves = precision == "float16"
        self.value = FIRST_SCALE if self.moves else 1.0
        self.finite = 0  # steps since the last change

    def after(self, finite: bool) -> bool:
        """Take note of a step's gradient; return whether the run can go on."""
        self.finite += 1
        if not finite:
            self.value, self.finite = self.value / 2, 0  # (17.2)
        elif self.moves and self.finite == PATIENCE:
            self.value, self.finite = self.value * 2, 0  # (17.3)
        return finite or (self.moves and self.value >= 1)


def rounded(parameters: Parameters, precision: Precision) -> Parameters:
    """Return the parameters that the model computes with: themselves, or a rounded copy."""
    if precision == "float32":
        return parameters
    return parameters.like(parameters.flat.astype(short_type(precision)))
