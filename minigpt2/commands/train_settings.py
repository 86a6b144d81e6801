"""Settings of a run: the options of `minigpt2 train`, each with its help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from minigpt2.commands.dataset import ALMANAC, WeightedDataSettings
from minigpt2.device.devices import Device
from minigpt2.errors import require_above_zero, require_at_least, require_share
from minigpt2.training.precision import Precision


@dataclass(frozen=True, kw_only=True)
class TrainSettings(WeightedDataSettings):
    """Tune a model on questions and answers.

    Examples:
        minigpt2 train         # the questions that ship, the small base
        minigpt2 train questions.json --model gpt2 --epochs 3
        minigpt2 train --config settings.yaml --learning-rate 1e-4

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
        out: folder of the run, new or empty (default: the first free of runs/<data>-1,
            runs/<data>-2, ...)
        test: questions to answer before and after tuning, scored by exact match, in one file or
            in several: [a.json,b.json] (the almanac brings its own)
        from_scratch: start from random weights of the model's size
        epochs: passes over the training examples
        steps: number of optimiser steps, instead of epochs
        batch_size: examples in one optimiser step
        micro_batch: examples computed at once; changes memory, not the result (default:
            batch_size)
        learning_rate: peak learning rate; the default suits the official weights
        schedule: curve on which the learning rate falls after the warm-up
        warmup: share of the steps during which the learning rate rises
        weight_decay: AdamW weight decay; applies to weight matrices, not to biases or layer
            norms
        beta1: AdamW's decay of the first moment
        beta2: AdamW's decay of the second moment
        eps: AdamW's epsilon, added to the root of the second moment
        clip: largest norm of the gradient over all parameters; 0 for no limit
        dropout: share of features and attention weights that are set to 0 in training
        recompute: gradient checkpointing: keep 3/8 of each block's activations and recompute the
            rest in the backward pass; saves memory, costs time
        validation: share of the examples for validation
        evaluate_every: steps between validations; 0 validates at the start and the end only
            (default: a tenth of the steps)
        patience: validations without an improvement after which the run stops; 0 is off
        save_every: steps between checkpoints; 0 for none by steps (one is saved at the end, and
            one after each validation that is the best so far)
        save_minutes: minutes between checkpoints; 0 for none by time
        keep: newest checkpoints that stay, besides that of the best validation; 0 keeps all
        resume: continue an unfinished run: its folder, or nothing for the newest of the data set
            that has these settings (if there is none, a new run starts)
        resume_anyway: resume although data or settings have changed; then it is another run
        log_every: steps between printed lines (log.jsonl has every step)
        tensorboard: also write event files for TensorBoard
        samples: number of questions whose answers are printed before and after tuning
        max_new_tokens: longest answer in tokens (default: as long as the longest reference)
        seed: seed of the split, the order, the initial weights and dropout
        device: auto takes cuda (a GPU, through CuPy) if it works, else cpu; emulated runs the GPU's
            kernels on the CPU, very slowly
        precision: number type of the passes on a GPU; AdamW's weights and moments stay float32
    """

    data: str = ALMANAC
    out: Path | None = None
    test: list[str] | str | None = None
    from_scratch: bool = False
    epochs: float = 2.0
    steps: int | None = None
    batch_size: int = 8
    micro_batch: int | None = None
    learning_rate: float = 5e-5
    schedule: Literal["linear", "cosine"] = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip: float = 1.0
    dropout: float = 0.0
    recompute: bool = False
    validation: float = 0.05
    evaluate_every: int | None = None
    patience: int = 0
    save_every: int = 0
    save_minutes: float = 10.0
    keep: int = 2
    resume: bool | Path = False
    resume_anyway: bool = False
    log_every: int = 10
    tensorboard: bool = False
    samples: int = 3
    max_new_tokens: int | None = None
    seed: int = 0
    device: Device = "auto"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self, "warmup", "validation", "dropout", "beta1", "beta2")
        require_above_zero(self, "epochs", "learning_rate", "eps")
        require_at_least(1, self, "steps", "batch_size", "micro_batch", "log_every")
        require_at_least(0, self, "weight_decay", "clip", "evaluate_every", "patience")
        require_at_least(0, self, "save_every", "save_minutes", "keep", "samples")
        require_at_least(0, self, "max_new_tokens", "seed")
