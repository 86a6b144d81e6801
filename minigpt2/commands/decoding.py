"""Decoding: the settings of all commands in which a model writes text."""

from dataclasses import dataclass

import numpy as np

from minigpt2.device.devices import Device, open_device
from minigpt2.errors import require_at_least
from minigpt2.inference.model import Model, open_model
from minigpt2.inference.sampling import Sampling
from minigpt2.reports.progress import progress
from minigpt2.terminal import note
from minigpt2.training.precision import Precision, check_precision, rounded


@dataclass(frozen=True, kw_only=True)
class DecodingSettings(Sampling):
    """The settings of a model that writes text.

    Args:
        model: name of a model, or folder of a model or of a run (its newest checkpoint)
        max_new_tokens: longest text to write, in tokens
        seed: seed of the random draws (a temperature of 0 draws nothing)
        device: auto takes cuda (a GPU, through CuPy) if it works, else cpu; emulated runs the GPU's
            kernels on the CPU, very slowly
        precision: number type of the weights on a GPU; 16 bits are read twice as fast, but an
            answer may differ in a word
    """

    model: str = "tiny"
    max_new_tokens: int = 64
    seed: int = 0
    device: Device = "auto"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "max_new_tokens")
        require_at_least(0, self, "seed")

    def open_model(self) -> Model:
        """Open the model on the device, as `open_rounded` does."""
        with progress(f"opening {self.model}"):
            return open_rounded(self.model, self.device, self.precision)

    def sampling(self) -> Sampling:
        """Return the settings of sampling alone."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.repetition_penalty)

    def rng(self) -> np.random.Generator:
        """Return the generator of the random draws."""
        return np.random.default_rng(self.seed)


def open_rounded(model: str, device: Device, precision: Precision) -> Model:
    """Open a model on a device, its weights rounded to a precision.

    Raises UserError if there is no such model or device, and for 16 bits on a CPU.
    """
    library = open_device(device)
    check_precision(precision, library)
    exact = open_model(model, library, warn=note)
    return exact._replace(parameters=rounded(exact.parameters, precision))
