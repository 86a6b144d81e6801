"""Reward models' weights: folders in the layout of transformers' GPT2ForSequenceClassification.

Files
    config.json          as a GPT-2's, with num_labels 1 and pad_token_id null, and score_bias
    model.safetensors    the tensors of a GPT-2 with the prefix `transformer.`, and score.weight

The score of an answer is score.weight · h + score_bias, with the row h of the answer's last token,
its end-of-text.  transformers returns the score without the bias.  It reads the row of the last
token whose id differs from pad_token_id.  If that were GPT-2's end-of-text, as is common, it would
read one row early; so pad_token_id is null, and transformers scores one text at a time.
"""

from math import isfinite
from pathlib import Path

import numpy as np

from minigpt2.errors import UserError
from minigpt2.model.parameters import Parameters, tensor_shapes
from minigpt2.reading import parse_json, read_text
from minigpt2.tensor_writer import write_tensors
from minigpt2.tensors import TENSORS
from minigpt2.weights import PREFIX, SCORE_WEIGHT

BIAS = "score_bias"
RESULT = "reward-model"  # in the folder of a run: the model whose scores have one unit


def save_reward_parameters(
    parameters: Parameters,
    folder: Path,
    bias: float,
    dtype: type = np.float32,
    end_of_text: int | None = None,
) -> dict[str, int]:
    """Write config.json and model.safetensors into a folder; return the checksums of the arrays.

    The id of end-of-text is that of the tokenizer; None stands for the last.
    """
    other = {
        "architectures": ["GPT2ForSequenceClassification"],
        "num_labels": 1,
        "pad_token_id": None,
        BIAS: bias,
    }
    parameters.config.save(folder / "config.json", end_of_text, **other)
    views = {f"{PREFIX}{name}": parameters[name] for name in tensor_shapes(parameters.config)}
    views[SCORE_WEIGHT] = parameters[SCORE_WEIGHT]
    return write_tensors(folder / TENSORS, views, dtype)


def stored_bias(folder: Path) -> float:
    """Return the bias in a reward model's config.json; 0 if it has none.

    Raises UserError if it is not a finite number.
    """
    path = folder / "config.json"
    bias = parse_json(read_text(path), path).get(BIAS, 0.0)
    if type(bias) not in (int, float) or not isfinite(bias):
        raise UserError(f"{path}: {BIAS} must be a finite number, not {bias!r:.60}")
    return float(bias)
