"""Checkpoint: a complete folder of a model, in the official layout.

Every command opens it like any other model.
"""

from pathlib import Path

import numpy as np

from minigpt2.data.template import Template
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.model.parameters import Parameters
from minigpt2.outputs import write_folder
from minigpt2.weights import save_parameters


def save_checkpoint(
    folder: Path,
    parameters: Parameters,
    tokenizer: Tokenizer,
    dtype: type = np.float32,
    template: Template | None = None,
) -> None:
    """Write a model with its tokenizer and its template, if it has one.

    The new folder replaces an older one in one move: it is never half written.
    """

    def fill(new_folder: Path) -> None:
        save_parameters(parameters, new_folder, dtype)
        tokenizer.save(new_folder)
        if template:
            template.save(new_folder)

    write_folder(folder, fill)
