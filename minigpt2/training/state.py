"""State: all that a step changes, in one object.

Everything else that a step needs follows from it: the order of an epoch from the seed and the
epoch, dropout's masks from the seed, the step and the micro-batch, the rounded copy of 16-bit
training from the parameters.  So a run can continue from its state alone.
"""

from dataclasses import dataclass, field

from minigpt2.backend import Array, array_module
from minigpt2.model.gradients import Gradients, gradients_of
from minigpt2.model.parameters import Parameters
from minigpt2.training.precision import LossScale, Precision, rounded


@dataclass
class State:
    """The parameters with AdamW's moments, the loss scale, and the place in the run.

    `compute` has the parameters of the forward and backward pass: the same array, or a rounded
    copy.  `gradients` is the memory for one step's gradients.  Both follow from the rest.
    """

    parameters: Parameters
    m: Array  # (P,) of the trained parameters
    v: Array  # (P,)
    scale: LossScale
    seed: int = 0
    step: int = 0  # steps taken: s of (10.5)
    epoch: int = 0
    position: int = 0  # in the epoch, at which the next step begins
    precision: Precision = "float32"
    compute: Parameters = field(init=False)
    gradients: Gradients = field(init=False)

    def __post_init__(self) -> None:
        self.compute = rounded(self.parameters, self.precision)
        self.gradients = gradients_of(self.parameters)

    @property
    def rounded_copy(self) -> Array | None:
        """The rounded flat array that AdamW writes with the parameters; None in float32."""
        return None if self.compute is self.parameters else self.compute.trainable


def new_state(parameters: Parameters, precision: Precision = "float32", seed: int = 0) -> State:
    """Return the state of a run that begins with these parameters."""
    zeros_like = array_module(parameters.flat).zeros_like
    return State(
        parameters,
        m=zeros_like(parameters.trainable),
        v=zeros_like(parameters.trainable),
        scale=LossScale.of(precision),
        seed=seed,
        precision=precision,
    )
