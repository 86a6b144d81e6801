"""Settings of train: the options of `minigpt2 train`, each with its help."""

from dataclasses import dataclass

from minigpt2.commands.dataset import ALMANAC, WeightedDataSettings
from minigpt2.commands.lora_settings import LoraSettings
from minigpt2.commands.run_settings import EpochSettings
from minigpt2.errors import UserError, require_at_least, require_share


@dataclass(frozen=True, kw_only=True)
class TrainSettings(EpochSettings, WeightedDataSettings, LoraSettings):
    """Tune a model on questions and answers.

    Examples:
        minigpt2 train         # the questions that ship, the small base
        minigpt2 train questions.json --model gpt2 --epochs 3
        minigpt2 train --config settings.yaml --learning-rate 1e-4
        minigpt2 train questions.json --model gpt2-large --lora-rank 8 --learning-rate 2e-4

    Output:
        step 10/184  loss 2.1025  lr 6.7e-04  norm 10.61  2,028 tok/s  254 MB
            loss       what the step lowers: a weighted mean over the batch's tokens
            lr         learning rate of this step
            norm       norm of the gradient before clipping
            tok/s      tokens computed a second
            254 MB     peak memory of the run so far
        step 184/184  validation loss 0.0403  by example 0.1174
            on the validation examples: mean over answer tokens, mean over examples
        step 7/184  overflowed in float16: again with loss scale 32,768
            the gradient was not finite: nothing changed; the step is taken again

    Args:
        data: file or folder of questions and answers (JSON or JSONL; the README lists the
            formats), or "almanac" for the questions that ship
        model: tiny, gpt2, gpt2-medium, gpt2-large, gpt2-xl, or the folder of a model or of a run
        test: questions to answer before and after tuning, scored by exact match, in one file or
            in several: [a.json,b.json] (the almanac brings its own)
        from_scratch: start from random weights of the model's size
        learning_rate: peak learning rate; the default suits the official weights
        dropout: share of features and attention weights that are set to 0 in training
        samples: number of questions whose answers are printed before and after tuning
        max_new_tokens: longest answer in tokens (default: as long as the longest reference)
        seed: seed of the split, the order, the initial weights and dropout
    """

    data: str = ALMANAC
    test: list[str] | str | None = None
    from_scratch: bool = False
    epochs: float = 2.0
    dropout: float = 0.0
    samples: int = 3
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        WeightedDataSettings.__post_init__(self)
        EpochSettings.__post_init__(self)
        LoraSettings.__post_init__(self)
        require_share(self, "dropout")
        if self.lora_rank and self.from_scratch:
            raise UserError(
                "lora_rank tunes adapters of a trained model, and from_scratch has none"
            )
        require_at_least(0, self, "samples", "max_new_tokens")
