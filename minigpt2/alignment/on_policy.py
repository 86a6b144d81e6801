"""On policy: which prompts a phase answers, what its answers are worth, and what is logged of them.

A phase is a rollout and the steps that learn from it: one in GRPO, several in PPO.  Its number,
its prompts and its random numbers follow from the seed and the place in the run, so a run that is
resumed draws what it would have drawn.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minigpt2.alignment.completions import Completion
from minigpt2.alignment.log_probs import Answer, batch_of_answers, by_answer, log_probs
from minigpt2.alignment.rollout import rollout
from minigpt2.backend import Array
from minigpt2.data.batches import epoch_order
from minigpt2.errors import OverBound, UserError
from minigpt2.model.parameters import Parameters
from minigpt2.training.state import State
from minigpt2.wording import shorten

ROLLOUT, MINIBATCHES = 4, 5  # streams of random numbers: of rollouts, and of PPO's minibatches
AT_ONCE = 64  # answers in a forward pass of the reference
# Of the first pass's ratios from 1, in float32; float64 is held to the same.  At 124M, logits that
# share a large part are rounded so that the mean is 1e-5, and one of 1,000 tokens is off by 1e-4.
MEAN_GAP, LARGEST_GAP = 1e-4, 1e-3

# From answers, and the number of each one's prompt, to their scores.
Score = Callable[[Sequence[Completion], Sequence[int]], Sequence[float]]

Observe = Callable[[int, Sequence[Completion], Sequence[float]], None]


def ignore(number: int, answers: Sequence[Completion], scores: Sequence[float]) -> None:
    """Take the answers of a rollout with their scores, and do nothing."""


class Phases:
    """The prompts of each phase, and their answers by the policy of a state.

    Phases take the prompts of one epoch after the other, each in a random order, without a gap: all
    phases are of the same size.  The place in a run is the number of steps taken.
    """

    def __init__(
        self,
        prompts: Sequence[list[int]],
        state: State,
        *,
        prompts_per_phase: int,
        steps_per_phase: int = 1,
        **options: Any,
    ):
        """`options` are those of `rollout`, with the number of `samples`."""
        self.prompts, self.state, self.options = prompts, state, options
        self.samples, self.temperature = options["samples"], options["temperature"]
        self.prompts_per_phase, self.steps_per_phase = prompts_per_phase, steps_per_phase

    def at(self, position: int) -> tuple[int, int]:
        """Return the number of the phase at a place in the run, and that of the step in it."""
        return divmod(position, self.steps_per_phase)

    def chosen(self, number: int) -> list[int]:
        """Return which prompts a phase answers."""
        n, start = len(self.prompts), number * self.prompts_per_phase
        places = (divmod(i, n) for i in range(start, start + self.prompts_per_phase))
        return [int(epoch_order(n, self.state.seed, epoch)[i]) for epoch, i in places]

    def answers(self, number: int) -> list[Completion]:
        """Return the answers of a phase, those to one prompt after each other."""
        prompts = [self.prompts[i] for i in self.chosen(number)]
        rng = np.random.default_rng([self.state.seed, ROLLOUT, number])
        return rollout(self.state.compute, prompts, rng=rng, **self.options)


def scores_of(
    answers: Sequence[Completion],
    numbers: Sequence[int],
    score: Score,
    decode: Callable[[Sequence[int]], str],
) -> list[float]:
    """Return the scores of answers.  Raises UserError, with the answer, for one that is none."""
    scores = [float(value) for value in score(answers, numbers)]
    for answer, value in zip(answers, scores, strict=True):
        if not np.isfinite(value):
            text = shorten(decode(answer.ids))
            raise UserError(f"the reward of an answer is {value}, not a number: {text!r}")
    return scores


def log_ratios_to(
    reference: Parameters, answers: Sequence[Completion], temperature: float
) -> list[Array]:
    """Return for each answer the log-ratios of its tokens, ln π as drawn − ln π_ref."""
    result: list[Array] = []
    for start in range(0, len(answers), AT_ONCE):
        part = [Answer(a.prompt, a.ids) for a in answers[start : start + AT_ONCE]]
        batch = batch_of_answers(part)
        result += by_answer(log_probs(reference, batch, temperature), batch)
    return [np.asarray(a.log_probs) - r for a, r in zip(answers, result, strict=True)]


class Summary(NamedTuple):
    """What a log says of a phase's answers."""

    reward: float  # their mean score
    kl: float | None  # of an answer, to the reference; None without one
    entropy: float  # of a token: the mean of −ln p
    length: float  # in tokens
    ended: float  # share of the answers

    def numbers(self) -> dict[str, float]:
        """Return those that are known, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def summary_of(
    answers: Sequence[Completion], scores: Sequence[float], log_ratios: Sequence[Array] | None
) -> Summary:
    """Return the summary of answers, whose log-ratios are those of their tokens (37.6)."""
    drawn = np.concatenate([answer.log_probs for answer in answers])
    return Summary(
        reward=float(np.mean(scores)),
        kl=None if log_ratios is None else float(np.mean([r.sum() for r in log_ratios])),
        entropy=float(-drawn.mean()),
        length=len(drawn) / len(answers),
        ended=float(np.mean([answer.ended for answer in answers])),
    )


def require_kl(summary: Summary, largest: float, step: int) -> None:
    """Raise OverBound if the KL of an answer, before a step, is over its bound; 0 sets none."""
    if largest and summary.kl is not None and summary.kl > largest:
        raise OverBound(
            f"step {step}: the policy has left its reference: the KL of an answer is "
            f"{summary.kl:.3g}, over the bound of {largest:g} (max_kl); lower the learning rate or "
            "raise beta; the run is saved, and --resume with --resume-anyway and another max_kl "
            "continues it"
        )


class Drawn(NamedTuple):
    """The answers of a phase, and what they are worth."""

    answers: list[Completion]
    scores: list[float]
    log_ratios: list[Array] | None  # of their tokens, for each answer; None without a reference
    summary: Summary


class OnPolicyData:
    """Steps whose answers the policy draws when they are due: the data of GRPO and of PPO.

    `notes` is JSON: a checkpoint holds it, and a run that is resumed gets it.
    """

    on_policy = True

    def __init__(
        self,
        phases: Phases,
        score: Score,
        decode: Callable[[Sequence[int]], str],
        *,
        reference: Parameters | None,
        notes: dict[str, Any] | None,
        observe: Observe,
    ):
        """`observe` sees the answers of each phase; without a reference there is no KL."""
        self.phases, self.score, self.decode = phases, score, decode
        self.reference, self.observe = reference, observe
        self.notes = {} if notes is None else notes
        self.numbers: dict[str, float] = {}  # for the log of the step that was made last

    def draw(self, number: int, step: int, max_kl: float) -> Drawn:
        """Return the answers of a phase, which begins at a step.

        Raises UserError for a score that is not a number, OverBound for a KL over its bound, unless
        that is 0.
        """
        answers = self.phases.answers(number)
        prompts = np.repeat(self.phases.chosen(number), self.phases.samples).tolist()
        scores = scores_of(answers, prompts, self.score, self.decode)
        self.observe(number, answers, scores)
        log_ratios = None
        if self.reference is not None:
            log_ratios = log_ratios_to(self.reference, answers, self.phases.temperature)
        summary = summary_of(answers, scores, log_ratios)
        require_kl(summary, max_kl, step)
        return Drawn(answers, scores, log_ratios, summary)


def require_first_pass(log_p: Array, old: Array, dtype: Any) -> None:
    """Raise UserError if a policy that has not changed finds other probabilities than were drawn.

    Only float32 and float64 are exact enough to tell.
    """
    gaps = abs(np.expm1(log_p - old))  # (M,)
    wrong = gaps.mean() > MEAN_GAP or gaps.max() > LARGEST_GAP
    if np.dtype(dtype).itemsize > 2 and wrong:
        raise UserError(
            f"the first pass over new answers must have the ratio 1, but it is off by up to "
            f"{gaps.max():.2g}: the policy that drew them is not the one that is trained"
        )
