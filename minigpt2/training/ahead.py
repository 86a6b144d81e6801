"""Ahead: a device gets the passes of the next step before the numbers of this one are back.

Why
    At the end of a step the host waits for its loss and norm, writes them down, and sends the next
    step to the device, which has nothing to do meanwhile: on an H200 0.3 ms of a step of 3.8, and
    0.7 to 1.0 ms of one of 16.  But the passes of the next step need only the new parameters, and
    those are on the device.  So its first micro-batch is sent right behind AdamW, and the device
    computes it while the host does the rest.

What must hold
    The launches, their numbers and their order stay the same, and so do the bits.  Ahead nothing is
    written but the gradients, which nobody reads between two steps: a run can be stored there, or
    end.  If the gradient has overflowed in float16, the parameters are the old ones and the step is
    taken again, with another loss scale; what was computed ahead is forgotten.

On a CPU nothing is sent ahead: there the host itself computes, and no time passes unused.
"""

from collections.abc import Sequence

import numpy as np

from minigpt2.backend import array_module
from minigpt2.model.batch import Batch
from minigpt2.training.config import TrainingConfig
from minigpt2.training.micro_batches import Begun, options_of
from minigpt2.training.objective import Objective
from minigpt2.training.state import State
from minigpt2.training.world import World


def begin_next(
    state: State,
    batches: Sequence[Batch],
    objective: Objective,
    config: TrainingConfig,
    world: World,
) -> Begun | None:
    """Send the first micro-batch of the step after this one to the device; None without a device.

    This step was sent already, with AdamW, and its numbers are not back yet.  None also if the next
    step has nothing to learn from, which is an error that it tells by itself.
    """
    if array_module(state.compute) is np:
        return None
    normaliser = world.sum(objective.normaliser(batches))
    if normaliser == 0:
        return None
    number, scale = state.step + 2, state.scale.after_finite_step()
    options = options_of(state, config, number, 0, normaliser=normaliser, loss_scale=scale)
    state.gradients.clear()
    result = objective.add_gradients(state.compute, batches[0], state.gradients, options)
    return Begun(normaliser, result)
