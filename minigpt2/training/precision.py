"""Precision: computing in 16 bits, learning in 32.

Why
    A GPU multiplies numbers of 16 bits many times faster than those of 32, and
    moves twice as many in the same time.  But a step of the optimiser is small
    compared with the weight that it changes: with 8 or 11 significant bits most steps
    would be rounded away.  So the weights, the gradients' sums and both moments stay in
    float32, and the model computes with a rounded copy of the weights, which AdamW
    writes along with them.  (Micikevicius et al. 2018, sections 3.1 and 3.3.)

Two 16-bit types
    bfloat16 has float32's range and 8 significant bits.  float16 has 11 significant
    bits and no number between 0 and 6·10⁻⁸; many gradients are smaller.

Loss scaling, for float16
    The gradient is linear in the loss.  The backward pass starts from
    ℒ_S = S ℒ                                                      (18.1)
    so every gradient in it is S times as large, and AdamW divides by S again.  (Ibid.,
    section 3.2.)  The best S is the largest with which nothing overflows.  So S starts
    large and is adjusted during the run: a step whose gradient is not finite changes
    nothing but
    S ← S / 2                                                      (18.2)
    and is taken again, from the same batches: no example is lost, and no step is counted
    that was not taken.  After 2,000 finite steps in a row
    S ← 2 S                                                        (18.3)
    S is a power of two, so that scaling rounds nothing.

Example: S is first 2¹⁶; a step overflows
    >>> scale = LossScale.of("float16")
    >>> scale.update(finite=False), scale.value  # the step is taken again with half of S
    (True, 32768.0)
"""

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

import numpy as np

from minigpt2.errors import UserError
from minigpt2.model.parameters import Parameters

Precision = Literal["float32", "bfloat16", "float16"]
FIRST_SCALE = 2.0**16
GROWTH_INTERVAL = 2000  # steps


def compute_dtype(precision: Precision) -> Any:
    """Return the number type of the model's forward and backward pass.

    Raises UserError if the package that brings bfloat16 is not installed.
    """
    if precision != "bfloat16":
        return np.dtype(precision).type
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        raise UserError("--precision bfloat16 needs ml_dtypes: pip install ml_dtypes") from None
    return bfloat16


def check_precision(precision: Precision, library: ModuleType) -> None:
    """Raise UserError for 16 bits on a CPU, and for a type whose package is not installed."""
    if precision != "float32" and library is np:
        raise UserError(f"--precision {precision} needs a GPU: this run computes on the cpu")
    compute_dtype(precision)


@dataclass
class LossScale:
    """S of (18.1), and the number of finite steps since S last changed.

    S is dynamic in float16; in the other types it stays 1.
    """

    dynamic: bool
    value: float
    finite_steps: int = 0

    @classmethod
    def of(cls, precision: Precision) -> "LossScale":
        """Return the first scale of a run in this precision."""
        dynamic = precision == "float16"
        return cls(dynamic, FIRST_SCALE if dynamic else 1.0)

    def update(self, finite: bool) -> bool:
        """Adjust S after a step, whose gradient was finite or not; return whether to continue.

        A gradient that is not finite ends the run if S cannot be the cause, that is, if S is not
        dynamic, or would fall below 1.
        """
        if not self.dynamic:
            return finite
        self.finite_steps += 1
        if not finite:
            self.value, self.finite_steps = self.value / 2, 0  # (18.2)
        elif self.finite_steps == GROWTH_INTERVAL:
            self.value, self.finite_steps = self.value * 2, 0  # (18.3)
        return finite or self.value >= 1

    def after_finite_step(self) -> float:
        """Return the S that follows a step whose gradient is finite."""
        after = replace(self)
        after.update(finite=True)
        return after.value


def rounded(parameters: Parameters, precision: Precision) -> Parameters:
    """Return the parameters for the passes: in float32 these themselves, else a rounded copy."""
    if precision == "float32":
        return parameters
    return parameters.astype(compute_dtype(precision))
