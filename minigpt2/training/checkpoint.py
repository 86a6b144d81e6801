"""Checkpoint: a complete folder of a model, in the official layout.

Every command opens it like any other model.
"""

from pathlib import Path

import numpy as np

from minigpt2.data.template import Template
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.durable import new_folder, remove_folder
from minigpt2.model.parameters import Parameters
from minigpt2.outputs import exists
from minigpt2.weights import save_parameters


def save_checkpoint(
    folder: Path,
    parameters: Parameters,
    tokenizer: Tokenizer,
    dtype: type = np.float32,
    template: Template | None = None,
) -> None:
    """Write a model with its tokenizer and its template, if it has one.

    When the new folder is written, an older one makes room for it.
    """
    with new_folder(folder) as new:
        save_parameters(parameters, new, dtype)
        tokenizer.save(new)
        if template:
            template.save(new)
        if exists(folder):
            remove_folder(folder)
