"""Settings: all that can be said about a tuning run, each with its type, default and meaning.

The command line and the settings file are derived from this class; nothing is
said twice.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from minigpt2.data.loss_weights import LossWeights
from minigpt2.data.truncation import Policy
from minigpt2.device.devices import Device
from minigpt2.errors import require_above_zero, require_at_least, require_share
from minigpt2.ops.adamw import AdamW
from minigpt2.training.precision import Precision


@dataclass(frozen=True)
class TrainSettings:
    """Tune a model on questions and answers.

    Args:
        model: folder of a model, folder of a run, or a name: tiny, gpt2, gpt2-medium,
            gpt2-large, gpt2-xl
        data: file or folder of questions and answers (JSON or JSONL, formats as Alpaca, messages,
            ShareGPT; all are in README.md), or "almanac" for the questions that ship
        out: folder of the run; must not hold one yet (default: the first free of
            runs/<data>-1, runs/<data>-2, ...)
        test: file of questions that are answered before and after, all of them, and
            counted by exact match, or several: [a.json,b.json] (the almanac brings its own)
        from_scratch: start from random weights of the model's size
        columns: which field of an entry stands for a format's: {"instruction": "ask"}
        template: alpaca, qa, chat, raw, or a .yaml or .json file with one of your own (default:
            the one that goes with the format)
        truncate: what of an example over the context is cut first: prompt, answer, or drop all
        prompt_weight: how much a prompt token counts in the loss, beside 1 for one of an answer
        loss: whether each answer token counts the same, or each example
        epochs: how often each example is seen
        steps: how many steps to take instead of counting epochs
        batch_size: examples in one optimiser step
        micro_batch: examples computed at once; changes memory, not the result (default:
            batch_size)
        context: longest sequence in tokens (default: the model's)
        learning_rate: peak of the schedule
        schedule: how the learning rate falls after the warm-up
        warmup: share of the steps in which the learning rate rises
        weight_decay: decoupled decay of parameters with two axes
        beta1: AdamW's decay of the first moment
        beta2: AdamW's decay of the second moment
        eps: AdamW's epsilon, outside the root
        clip: largest global norm of the gradient; 0 for no limit
        dropout: share of features and attention weights that are dropped
        recompute: keep 3/8 of what each block makes, and make the rest again on the way back
        validation: share of the examples that is held back for validation
        evaluate_every: steps between validations; 0 for the end only
        save_every: steps between checkpoints; 0 for the end only
        log_every: steps between printed lines (log.jsonl has every step)
        tensorboard: write event files for TensorBoard into the run's folder, too
        samples: held-out questions whose answers are printed, before and after
        max_new_tokens: longest answer to a question that is not counted by exact match
        seed: of the split, the order, the initial weights and dropout
        device: where to compute: cpu, cuda (a GPU, by CuPy), emulated (the GPU's kernels without
            one: very slow), or auto: cuda where it works, else cpu
        precision: what the model computes in on a GPU; weights and moments stay in float32
    """

    model: str = "tiny"
    data: str = "almanac"
    out: Path | None = None
    test: list[str] | str | None = None
    from_scratch: bool = False
    columns: dict[str, str] | None = None
    template: str | None = None
    truncate: Policy = "prompt"
    prompt_weight: float = 0.0
    loss: Literal["token", "example"] = "token"
    epochs: float = 2.0
    steps: int | None = None
    batch_size: int = 8
    micro_batch: int | None = None
    context: int | None = None
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
    evaluate_every: int = 0
    save_every: int = 0
    log_every: int = 10
    tensorboard: bool = False
    samples: int = 3
    max_new_tokens: int = 48
    seed: int = 0
    device: Device = "auto"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        require_share(self, "warmup", "validation", "dropout", "beta1", "beta2")
        require_above_zero(self, "epochs", "learning_rate", "eps")
        require_at_least(1, self, "steps", "batch_size", "micro_batch", "context", "log_every")
        require_at_least(0, self, "weight_decay", "clip", "evaluate_every", "save_every", "samples")
        require_at_least(0, self, "max_new_tokens", "seed", "prompt_weight")

    @property
    def at_once(self) -> int:
        """The number of examples that are computed at once."""
        return self.micro_batch or self.batch_size

    def loss_weights(self) -> LossWeights:
        """Return how tokens are weighed."""
        return LossWeights(self.prompt_weight, self.loss == "example")

    def adamw(self) -> AdamW:
        """Return the constants of the optimiser."""
        return AdamW(self.beta1, self.beta2, self.eps, self.weight_decay, self.clip)
