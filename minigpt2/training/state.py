"""State: what a step changes."""

from minigpt2.backend import Array, array_module
from minigpt2.model.gradients import Gradients
from minigpt2.model.parameters import Parameters
from minigpt2.ops.adamw import AdamW, adamw_flat


class Moments:
    """What the optimiser remembers: m and v, and how many steps were taken."""

    def __init__(self, parameters: Parameters):
        zeros_like = array_module(parameters.flat).zeros_like
        self.m = zeros_like(parameters.trainable)
        self.v = zeros_like(parameters.trainable)
        self.step = 0


def adamw_step(
    parameters: Parameters,
    gradients: Gradients,
    moments: Moments,
    eta: float,
    settings: AdamW,
    copy: Array | None = None,
    unscale: float = 1.0,
) -> float:
    """Take one step with learning rate eta; return the global norm before clipping.

    Nothing is changed if the norm is not finite: then FloatingPointError is raised, but for a
    device, where the norm is an array (1,) that nobody has waited for.  The gradients are
    multiplied by `unscale` first, but the norm is of them as they are.  `copy` (P,) gets the new
    parameters, too, rounded to what it holds.
    """
    arrays = parameters.trainable, gradients.flat, moments.m, moments.v
    moments.step += 1
    decayed, step = parameters.n_decayed, moments.step
    try:
        return adamw_flat(*arrays, decayed, step, eta, settings, copy, unscale)
    except FloatingPointError:
        moments.step -= 1
        raise
