"""PPO: a policy learns from rewards of its own answers, with a value function; records the run.

This is `minigpt2 ppo`.
"""

from dataclasses import dataclass
from typing import Any, Literal

from minigpt2.alignment.on_policy import Observe
from minigpt2.alignment.ppo import Coefficients, PPOObjective, Returns
from minigpt2.alignment.ppo_phases import PhaseOptions, PPOData
from minigpt2.alignment.value_function import with_value_head, with_value_model
from minigpt2.commands.dataset import Dataset, open_data
from minigpt2.commands.policy_run import PolicyRun, setup_policy
from minigpt2.commands.policy_settings import PolicySettings
from minigpt2.commands.policy_steps import run_policy
from minigpt2.commands.rewards import Reward
from minigpt2.data.batches import EpochBatches
from minigpt2.errors import UserError, require_above_zero, require_at_least, require_with
from minigpt2.model.parameters import Parameters
from minigpt2.training.objective import Objective
from minigpt2.training.run import Data


@dataclass(frozen=True, kw_only=True)
class PpoSettings(PolicySettings):
    """Let a model learn from the rewards of its own answers (PPO).

    Examples:
        minigpt2 ppo --model runs/almanac-1 --reward-model runs/pairs-reward-1 --learning-rate 1e-4
        minigpt2 ppo questions.json --model runs/questions-1 --check exact --beta 0.1

    Output:
        step 10/100  loss 0.0912  reward 0.412  kl 0.31  entropy 0.45  length 15.8
            loss       what the step lowers
            reward     mean of the answers of the rollout
            kl         KL of an answer to the reference, by these answers
            entropy    mean of -ln p over their tokens
            length     their mean length in tokens
        The report also shows the share of tokens that are clipped, the loss of
        the values, and answers on the way.

    Args:
        steps: number of optimiser steps; answers are drawn once in epochs * minibatches of them
        micro_batch: answers computed at once; changes memory, not the result (default: a whole
            minibatch)
        learning_rate: peak learning rate; the default suits the official weights, 1e-4 the tiny
            base
        epochs: how often the answers of a rollout are learnt from
        minibatches: steps in each of these epochs
        target_kl: KL of an answer that beta is adapted to (adaptive KL controller); 0 leaves beta
            as it is
        horizon: answers in which beta may change by a fifth
        ratio_clip: clip range ε: change of a token's probability, as a share, beyond which a
            rollout's steps push it no further
        value: the value function is a head on the policy's own rows, or a model apart, which starts
            as the reward model (with a check, as the policy)
        value_clip: change of a value beyond which a rollout's steps push it no further
        value_weight: weight of the value's loss (vf_coef)
        gamma: discount of later rewards
        gae_lambda: how much advantages trust later rewards more than values, from 0 to 1
        whiten_rewards: divide the rewards of a rollout's tokens by their standard deviation
        tuning_data: questions and answers whose loss is added, so that they are not forgotten
        tuning_weight: weight of that loss
        tuning_batch: examples of them in a step
    """

    learning_rate: float = 3e-6
    prompts: int = 64
    answers: int = 1
    cut_penalty: float = 1.0
    beta: float = 0.05
    epochs: int = 4
    minibatches: int = 1
    target_kl: float = 0.0
    horizon: float = 10_000.0
    ratio_clip: float = 0.2
    value: Literal["policy", "apart"] = "policy"
    value_clip: float = 0.2
    value_weight: float = 0.1
    gamma: float = 1.0
    gae_lambda: float = 0.95
    whiten_rewards: bool = False
    tuning_data: str | None = None
    tuning_weight: float = 1.0
    tuning_batch: int = 8

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise UserError(
                f"beta must be above 0, not {self.beta:g}: without a price for leaving its "
                "reference a policy learns whatever deceives the reward; 1e-6 is as good as none"
            )
        super().__post_init__()
        require_above_zero(self, "horizon", "ratio_clip", "value_clip", "tuning_weight")
        require_at_least(0, self, "target_kl", "value_weight")
        require_at_least(1, self, "epochs", "minibatches", "tuning_batch")
        require_with("target_kl", self, "horizon")
        require_with("tuning_data", self, "tuning_weight", "tuning_batch")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must be from 0 to 1, not {getattr(self, name):g}")
        if self.minibatches > self.prompts * self.answers:
            raise UserError(
                f"minibatches must be at most {self.prompts * self.answers}, the number of answers "
                f"of a rollout, not {self.minibatches}"
            )


def ppo(settings: PpoSettings) -> dict[str, Any]:
    """Do a whole run, or the rest of one; return the content of its summary.json.

    Raises UserError for bad input.
    """
    per_step = -(-settings.prompts * settings.answers // settings.minibatches)
    micro_batch = min(settings.micro_batch or per_step, per_step)
    steps_per_phase = settings.epochs * settings.minibatches

    def extended(policy: Parameters, reward: Reward) -> Parameters:
        if settings.value == "policy":
            return with_value_head(policy)
        return with_value_model(policy, reward.parameters or policy, reward.bias)

    def opened(settings: PolicySettings, start: str | None) -> PolicyRun:
        return setup_policy(settings, start, extended)

    def made(run: PolicyRun, notes: dict[str, Any], observe: Observe) -> tuple[Data, Objective]:
        data = PPOData(
            run.phases(settings, steps_per_phase),
            run.reward.score,
            run.dataset.tokenizer.decode,
            phase_options(settings, micro_batch),
            reference=run.reference,
            tuning=tuning_batches(settings, run.dataset, micro_batch),
            notes=notes,
            observe=observe,
        )
        return data, PPOObjective(coefficients_of(settings), settings.temperature, data)

    return run_policy(
        settings,
        "ppo",
        opened,
        made,
        micro_batch=micro_batch,
        accumulates=micro_batch < per_step or settings.tuning_data is not None,
        steps_per_phase=steps_per_phase,
    )


def coefficients_of(settings: PpoSettings) -> Coefficients:
    """Return the constants of a step's loss."""
    return Coefficients(
        clip=settings.ratio_clip,
        value_clip=settings.value_clip,
        value=settings.value_weight,
        tuning=settings.tuning_weight if settings.tuning_data else 0.0,
    )


def phase_options(settings: PpoSettings, micro_batch: int) -> PhaseOptions:
    """Return how a phase is rewarded, and cut into steps."""
    penalty, whiten = settings.cut_penalty, settings.whiten_rewards
    return PhaseOptions(
        beta=settings.beta,
        target_kl=settings.target_kl,
        horizon=settings.horizon,
        max_kl=settings.max_kl,
        minibatches=settings.minibatches,
        micro_batch=micro_batch,
        tuning=settings.tuning_weight,
        returns=Returns(penalty, settings.gamma, settings.gae_lambda, whiten),
    )


def tuning_batches(
    settings: PpoSettings, dataset: Dataset, micro_batch: int
) -> EpochBatches | None:
    """Return the examples of instruction tuning, if there are some; raises UserError."""
    if not settings.tuning_data:
        return None
    data = open_data(settings.tuning_data, settings.columns, settings.skip_bad)
    examples, _ = dataset.examples(data.records)
    batch, seed = settings.tuning_batch, settings.seed
    return EpochBatches(examples, batch_size=batch, micro_batch=min(micro_batch, batch), seed=seed)
