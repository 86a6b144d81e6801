"""GRPO: a policy learns by comparing its own answers to the same prompt, and records the run.

This is `minigpt2 grpo`.
"""

from dataclasses import dataclass
from typing import Any, Literal

from minigpt2.alignment.grpo import GroupData, GroupObjective, GroupOptions, require_group
from minigpt2.alignment.on_policy import Observe
from minigpt2.commands.policy_run import PolicyRun, setup_policy
from minigpt2.commands.policy_settings import PolicySettings
from minigpt2.commands.policy_steps import run_policy
from minigpt2.training.objective import Objective
from minigpt2.training.run import Data


@dataclass(frozen=True, kw_only=True)
class GrpoSettings(PolicySettings):
    """Let a model learn by comparing its own answers to the same question (GRPO).

    Examples:
        minigpt2 grpo --check equation --model runs/almanac-1 --learning-rate 1e-4  # the tiny base
        minigpt2 grpo questions.json --model runs/questions-1 --reward-model runs/pairs-reward-1

    Output:
        step 10/100  loss 0.0000  reward 0.412  kl 0.31  entropy 0.45  length 15.8
            loss       what the step lowers; near 0, and no measure of progress
            reward     mean of the answers that were drawn for this step
            kl         KL of an answer to the reference, by these answers
            entropy    mean of -ln p over their tokens
            length     their mean length in tokens
        The report also shows the share of prompts whose answers all had the same
        reward, and answers on the way.

    Args:
        answers: answers to each prompt, at least 2: they are each other's baseline
        micro_batch: prompts computed at once; changes memory, not the result (default: all)
        learning_rate: peak learning rate; the default suits the official weights, 1e-4 the tiny
            base
        divide_by_sigma: divide a group's advantages by its standard deviation, as in GRPO's first
            form; prompts that are nearly always or nearly never answered well then count more
        normaliser: what the sum over the tokens is divided by: the tokens of the step; constant,
            the longest length; answer, each answer's length, which lets wrong answers grow; sample,
            the answers
        baseline: mean of the group, or of the other answers (leave-one-out)
    """

    learning_rate: float = 1e-6
    divide_by_sigma: bool = False
    normaliser: Literal["tokens", "constant", "answer", "sample"] = "tokens"
    baseline: Literal["mean", "leave-one-out"] = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_group(self.answers)


def grpo(settings: GrpoSettings) -> dict[str, Any]:
    """Do a whole run, or the rest of one; return the content of its summary.json.

    Raises UserError for bad input.
    """
    micro_batch = min(settings.micro_batch or settings.prompts, settings.prompts)
    options = GroupOptions(
        beta=settings.beta,
        baseline=settings.baseline,
        divide_by_sigma=settings.divide_by_sigma,
        shares=settings.normaliser,
        penalty=settings.cut_penalty,
        max_kl=settings.max_kl,
        micro_batch=micro_batch,
    )

    def made(run: PolicyRun, notes: dict[str, Any], observe: Observe) -> tuple[Data, Objective]:
        data = GroupData(
            run.phases(settings, 1),
            run.reward.score,
            run.dataset.tokenizer.decode,
            options,
            reference=run.reference,
            notes=notes,
            observe=observe,
        )
        return data, GroupObjective(data)

    several = micro_batch < settings.prompts
    return run_policy(
        settings, "grpo", setup_policy, made, micro_batch=micro_batch, accumulates=several
    )
