"""GRPO: several answers to one prompt are each other's baseline.

Why
    Whether an answer was better than expected takes an expectation.  A value function
    would be a second model to train.  But where K answers to the same prompt are drawn, the
    mean of their rewards says what was to be expected (group-relative policy
    optimisation; Shao et al. 2024).

A step
    Q prompts are answered K times each, and answer yₖ of a prompt gets a score r(yₖ).  Where
    β > 0, the price of (37.2) for leaving the reference is part of the reward,
    rₖ = r(yₖ) − β ( ln π(yₖ) − ln π_ref(yₖ) )                     (45.1)
    and not of the loss, where it would have another gradient (37.9).  By default β is 0:
    a program checks the answers, so there is no reward model that could be deceived, and no
    reference is needed.  The group is the baseline: Aₖ = rₖ − mean(r), which is (41.9).

    Each rollout is used for one step, so the policy that learns is the one that drew the
    answers.  Every ratio (40.5) is 1, nothing is clipped, and (40.9) becomes
    wₙ = uₙ Aₙ                                                     (45.2)
    with the share u of (40.10) for each token.  No second pass, no ratio, no clip; that
    the ratios are 1 is checked in each step, for if they are not, the answers were drawn
    from another policy than the one that is trained.

Groups without a difference
    If all rewards of a group are equal, its advantages are exactly
    Aₖ = 0  where max(r) = min(r)                                  (45.3)
    and its answers need no pass at all: they are left out of the batch, and counted in the
    log as `alike`.  Their tokens still count in the Z of the step, for (40.4) is a mean over
    all answers.  With success probability p a group is alike with probability
    pᴷ + (1 − p)ᴷ: prompts that are too easy or too hard teach nothing.  When no group has had
    a difference for PATIENCE steps, the run ends, and is saved: if its answers are rewarded,
    the task is learnt, else it is too hard.  `alike` and PATIENCE look at the rewards
    before the price of (45.1): with β > 0 a group of equal scores is still led back to the
    reference, but it says nothing about the task.

    Two parts of GRPO's first form are options here, and have a bias: the division by the
    group's σ (41.11), and the share 1/(G |a|) of a token (40.10).

Example: two prompts with the rewards 1, 0, 0 and 1, 1, 1
    >>> advantages_of_groups(np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])).round(3).tolist()
    [[0.667, -0.333, -0.333], [0.0, 0.0, 0.0]]

    In sums of floating-point numbers, a mean of equal numbers may differ from them; a
    group that is alike gets 0 all the same:
    >>> x = np.full((1, 3), 0.1)
    >>> float((x - x.mean()).max()) == 0, float(advantages_of_groups(x).max())
    (False, 0.0)

Read it
    In a group the advantages add up to 0.  So with equal shares, the weights of a token that
    all answers begin with add up to 0, too: it is neither praised nor blamed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minigpt2.alignment.advantages import final_score, group_advantages
from minigpt2.alignment.completions import Completion
from minigpt2.alignment.log_probs import Answer, batch_of_answers, policy_gradients, with_columns
from minigpt2.alignment.on_policy import (
    Observe,
    OnPolicyData,
    Phases,
    Score,
    ignore,
    require_first_pass,
)
from minigpt2.alignment.policy_gradient import normaliser, ratios, token_shares
from minigpt2.backend import Array
from minigpt2.data.batches import StepBatches
from minigpt2.errors import NothingToLearn, OverBound, UserError
from minigpt2.model.batch import Batch
from minigpt2.model.gradients import Gradients
from minigpt2.model.parameters import Parameters
from minigpt2.training.objective import Options
from minigpt2.wording import plural

PATIENCE = 20  # steps without any difference


class GroupOptions(NamedTuple):
    """How answers are rewarded and compared."""

    beta: float = 0.0  # of (45.1)
    baseline: str = "mean"  # one of BASELINES
    divide_by_sigma: bool = False
    shares: str = "tokens"  # one of NORMALISERS
    penalty: float = 0.0  # c of (41.3)
    max_kl: float = 0.0  # of an answer; 0: without a bound
    micro_batch: int = 1  # prompts


BY_DEFAULT = GroupOptions()


def advantages_of_groups(
    rewards: Array, baseline: str = "mean", divide_by_sigma: bool = False
) -> Array:
    """Return A (Q, K) of the rewards of K answers to each of Q prompts; K is at least 2.

    As `group_advantages`, but a group without a difference gets exactly 0.
    """
    advantages = group_advantages(rewards, baseline, divide_by_sigma)  # (Q, K)
    return np.where(alike(rewards)[:, None], 0.0, advantages)  # (Q, K)


def alike(rewards: Array) -> Array:
    """Return (Q,) whether the rewards (Q, K) of each group are all the same."""
    return rewards.max(1) == rewards.min(1)  # (Q,)  (45.3)


def require_group(samples: int) -> None:
    """Raise UserError for groups of one answer."""
    if samples < 2:
        raise UserError(
            f"answers must be at least 2, not {samples}: the other answers to a prompt are what an "
            "answer is compared with"
        )


class GroupData(OnPolicyData):
    """The steps of GRPO: each draws answers, and compares those to the same prompt."""

    def __init__(
        self,
        phases: Phases,
        score: Score,
        decode: Callable[[Sequence[int]], str],
        options: GroupOptions = BY_DEFAULT,
        *,
        reference: Parameters | None = None,
        notes: dict[str, Any] | None = None,
        observe: Observe = ignore,
    ):
        """Raises UserError for one answer a prompt, ValueError for beta without a reference."""
        require_group(phases.samples)
        if options.beta and reference is None:
            raise ValueError("beta above 0 needs a reference")
        super().__init__(phases, score, decode, reference=reference, notes=notes, observe=observe)
        self.options = options
        self.normaliser = 0.0  # the Z of the step that was made last

    def at(self, epoch: int, position: int) -> StepBatches:
        """Draw the answers of the step at a place; return the batches of those that differ.

        Raises UserError for a score that is not a number, OverBound for a KL over its bound, and
        OverBound or NothingToLearn after PATIENCE steps in which no group had a difference.
        """
        number, _ = self.phases.at(position)
        options, samples = self.options, self.phases.samples
        answers, scores, log_ratios, summary = self.draw(number, number + 1, options.max_kl)
        pairs = zip(scores, answers, strict=True)
        rewards = np.array([final_score(s, a.ended, options.penalty) for s, a in pairs])
        groups = rewards.reshape(-1, samples)  # (Q, K)
        self.numbers = summary.numbers() | {"alike": float(alike(groups).mean())}
        self.require_difference(number, groups)
        if log_ratios and options.beta:
            price = options.beta * np.array([ratio.sum() for ratio in log_ratios])
            groups = groups - price.reshape(-1, samples)  # (Q, K)  (45.1)
        ways = options.baseline, options.divide_by_sigma
        advantages = advantages_of_groups(groups, *ways)  # (Q, K)
        return StepBatches(self.batches(answers, advantages), epoch, position + 1)

    def require_difference(self, number: int, rewards: Array) -> None:
        """Raise an error if no group has had a difference for PATIENCE steps.

        It is NothingToLearn if the answers are rewarded, else OverBound.
        """
        if not alike(rewards).all():
            self.notes.pop("alike_since", None)
        elif number - self.notes.setdefault("alike_since", number) + 1 >= PATIENCE:
            text = (
                f"no group of answers has had a difference in reward for "
                f"{plural(PATIENCE, 'step')} (the last mean was {rewards.mean():g})"
            )
            if rewards.mean() > 0:
                raise NothingToLearn(text)
            raise OverBound(
                f"step {number + 1}: {text}, so there is nothing to learn: take easier prompts, a "
                "model that is tuned further, more --answers, or another check; the run is saved, "
                "and --resume with --resume-anyway continues with other settings"
            )

    def batches(self, answers: Sequence[Completion], advantages: Array) -> list[Batch]:
        """Return the micro-batches of the groups that differ; note the Z of all."""
        kind, samples = self.options.shares, self.phases.samples
        of = np.repeat(np.arange(len(answers)), [len(a.ids) for a in answers])  # (M,)
        self.normaliser = normaliser(kind, of, self.phases.options["max_new_tokens"])
        differing = np.flatnonzero(advantages.any(1))
        result = []
        for start in range(0, len(differing), self.options.micro_batch):
            groups = differing[start : start + self.options.micro_batch]
            part = (groups[:, None] * samples + np.arange(samples)).ravel().tolist()
            batch = batch_of_answers([Answer(answers[i].prompt, answers[i].ids) for i in part])
            batch = with_columns(
                batch,
                advantage=[[advantages.flat[i]] * len(answers[i].ids) for i in part],
                old=[answers[i].log_probs for i in part],
            )
            result.append(batch)
        return result


class GroupObjective:
    """The policy gradient of one pass on policy: the objective of GRPO."""

    def __init__(self, data: GroupData):
        self.data = data

    def normaliser(self, batches: Sequence[Batch]) -> float:
        """Return the Z of the step that was made last."""
        return self.data.normaliser

    def add_gradients(
        self, parameters: Parameters, batch: Batch, gradients: Gradients, options: Options
    ) -> Array:
        """Add the gradients of a micro-batch; return ln p (M,).

        Raises UserError if the ratios are not 1.
        """
        shares = token_shares(self.data.options.shares, batch.answers)  # (M,)
        w = shares * batch.columns["advantage"] / options.normaliser  # (M,)  (45.2)
        temperature = self.data.phases.temperature
        log_p = policy_gradients(
            parameters, batch, gradients, lambda log_p: w, options, temperature=temperature
        )  # (M,)
        require_first_pass(log_p, batch.columns["old"], parameters.flat.dtype)
        return log_p

    def metrics(self, batches: Sequence[Batch], results: Sequence[Array | None]) -> dict[str, Any]:
        """Return the loss (40.7), what is known of the answers, and by how much ratios are off."""
        loss = error = 0.0
        for batch, log_p in zip(batches, results, strict=True):
            rho = ratios(log_p, batch.columns["old"])  # (M,)
            shares = token_shares(self.data.options.shares, batch.answers)  # (M,)
            loss -= float((shares * batch.columns["advantage"]) @ rho) / self.data.normaliser
            error = max(error, float(abs(rho - 1).max()))
        return {"loss": loss, **self.data.numbers, "ratio_error": error}
