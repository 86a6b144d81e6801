"""Checkpoint: a model's folder, complete, in the official layout.

The sampler and a later `train` open it like any other model.
"""

from pathlib import Path

import numpy as np

from minigpt2.data.template import Template
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.model.parameters import Parameters
from minigpt2.weights import save_parameters, write_folder


def save_checkpoint(
    folder: Path,
    parameters: Parameters,
    tokenizer: Tokenizer,
    dtype: type = np.float32,
    template: Template | None = None,
) -> None:
    """Write a model with what belongs to it; the folder appears whole, in place of an older one."""

    def fill(beside: Path) -> None:
        save_parameters(parameters, beside, dtype)
        tokenizer.save(beside)
        if template:
            template.save(beside)

    write_folder(folder, fill)
