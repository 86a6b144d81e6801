"""Settings of plan: they also say what the run that they name needs."""

from dataclasses import dataclass
from typing import Literal

from minigpt2.commands.dataset import WeightedDataSettings
from minigpt2.commands.lora_settings import LoraSettings
from minigpt2.commands.pair_settings import NO_DROPOUT
from minigpt2.errors import UserError, changed, require_above_zero, require_at_least, require_share
from minigpt2.planning.alignment_memory import ALIGNED, REFERENCE, REWARD_MODEL, TUNING, Needs
from minigpt2.training.precision import Precision
from minigpt2.wording import plural

MOST_MEMORY = 1e9  # GB
ON_POLICY = ("ppo", "grpo")  # these draw the answers that they learn from
DRAWS = ("answers", "max_new_tokens", "check", "value")  # settings of these
WEIGHS = ("loss", "prompt_weight")  # of the loss of questions and answers
WITHOUT_EFFECT = {
    "train": DRAWS,
    "reward": (*DRAWS, *WEIGHS),
    "dpo": (*DRAWS, *WEIGHS),
    "ppo": ("validation", *WEIGHS),
    "grpo": ("validation", "value", *WEIGHS),
}
# What the planned command has, too; sizes are found.
CARRIED = (
    *("columns", "skip_bad", "template", "truncate", *WEIGHS),
    *("dropout", "validation", "keep", "seed", "device", "precision"),
    *("lora_rank", "lora_alpha", "lora_layers", "lora_rslora", "lora_merge"),
)


@dataclass(frozen=True, kw_only=True)
class PlanSettings(WeightedDataSettings, LoraSettings):
    """Estimate the memory and the time of a run.

    Examples:
        minigpt2 plan gpt2 --batch-size 8
        minigpt2 plan gpt2-large --data questions.json --memory 16
        minigpt2 plan gpt2-large --device cuda --precision bfloat16 --memory 80
        minigpt2 plan gpt2-large --run ppo --value apart
        minigpt2 plan gpt2-large --micro-batch 1 --recompute --lora-rank 8

    Args:
        model: model of the run: a name, or the folder of a model or of a run
        run: the command whose run is planned
        value: where the value function of ppo is: on the policy's rows, or a model apart
        check: a program scores the answers of ppo or grpo, and no reward model
        data: file or folder of questions and answers, or of preference pairs, or "almanac", whose
            batches are counted; not for ppo and grpo (default: none; every example fills the
            context, every token is supervised; a pair has a prompt of half of it)
        batch_size: examples in one optimiser step (default: that of the command, 8 for train and
            grpo, 32 for reward and dpo, 64 for ppo); pairs for reward and dpo; for ppo and grpo
            prompts, with all of their answers
        answers: answers that ppo and grpo draw to each prompt (default: 1 for ppo, 8 for grpo)
        max_new_tokens: longest answer that ppo and grpo draw (default: half of the context)
        micro_batch: of these, computed at once (default: batch_size)
        recompute: gradient checkpointing: keep 3/8 of each block's activations and recompute the
            rest in the backward pass
        dropout: share of features and attention weights that are set to 0 in training
        validation: share of the examples for validation, as in a training run
        keep: newest checkpoints that stay, as in a training run; 0 for all
        seed: seed of the split and of the order, as in a training run
        device: cpu counts the memory of a run on this processor, cuda that of one on a GPU, which
            need not be there
        precision: number type of the forward and backward pass on a GPU
        memory: memory for the run, in GB of 10⁹ bytes (default: what the device has free)
        time: also time one block on this processor, to estimate the time of a step, and for ppo and
            grpo of a rollout
    """

    run: Literal["train", "reward", "dpo", "ppo", "grpo"] = "train"
    value: Literal["policy", "apart"] = "policy"
    check: bool = False
    answers: int | None = None
    max_new_tokens: int | None = None
    data: str = ""
    batch_size: int | None = None
    micro_batch: int | None = None
    recompute: bool = False
    dropout: float = 0.0
    validation: float = 0.05
    keep: int = 2
    seed: int = 0
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Precision = "float32"
    memory: float | None = None
    time: bool = True

    def __post_init__(self) -> None:
        WeightedDataSettings.__post_init__(self)
        LoraSettings.__post_init__(self)
        if self.lora_rank and self.run != "train":
            raise UserError(f"lora_rank has no effect on {self.run}: train alone has adapters")
        require_at_least(1, self, "batch_size", "micro_batch", "answers", "max_new_tokens")
        if self.dropout and self.run != "train":
            raise UserError(f"dropout must be 0 for {self.run}: {NO_DROPOUT}")
        for name in changed(self, WITHOUT_EFFECT[self.run]):
            raise UserError(f"{name} has no effect on {self.run}")
        if self.data and self.run in ON_POLICY:
            raise UserError(
                f"data is not counted for {self.run}, whose answers are not there yet: leave it "
                "out, and give context, answers and max_new_tokens"
            )
        require_at_least(0, self, "keep", "seed")
        require_share(self, "dropout", "validation")
        if self.memory is not None:
            require_above_zero(self, "memory")
            if self.memory > MOST_MEMORY:
                raise UserError(f"memory is in GB: {self.memory:g} is too large")
        if self.precision != "float32" and self.device == "cpu":
            raise UserError(f"--precision {self.precision} needs a GPU: add --device cuda")
        if self.run == "grpo" and self.answers == 1:
            raise UserError("answers must be at least 2 for grpo: they are compared")


def batch_size_of(settings: PlanSettings) -> int:
    """Return how many examples, pairs or prompts a step has."""
    return settings.batch_size or {"dpo": 32, "reward": 32, "ppo": 64}.get(settings.run, 8)


def samples_of(settings: PlanSettings) -> int:
    """Return how many answers are drawn to a prompt."""
    return settings.answers or (1 if settings.run == "ppo" else 8)


def answer_tokens(settings: PlanSettings, context: int) -> int:
    """Return how long a drawn answer may be; raises UserError if a prompt has no room."""
    longest = settings.max_new_tokens or max(1, context // 2)
    if longest >= context:
        raise UserError(f"max_new_tokens {longest} leaves no room in {plural(context, 'token')}")
    return longest


def needs_of(settings: PlanSettings, context: int) -> Needs:
    """Return what a run holds besides a step of instruction tuning."""
    if settings.run in ("train", "dpo"):
        return Needs(projections=TUNING if settings.run == "train" else ALIGNED)
    if settings.run == "reward":
        return Needs(projections=0)
    read = (REFERENCE,) if settings.check else (REFERENCE, REWARD_MODEL)
    apart = settings.run == "ppo" and settings.value == "apart"
    answers = batch_size_of(settings) * samples_of(settings)
    return Needs(
        read,
        trained=int(apart),
        projections=ALIGNED,
        answers=answers,
        rows=context,
        samples=samples_of(settings),
        prompt=context - answer_tokens(settings, context),
    )
