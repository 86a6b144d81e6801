"""Phases of PPO: what is drawn once and learnt from in several steps, and how it is kept.

Until a phase ends, a resumed run needs its answers, and what was computed of them when the policy
was still the one that drew them.  So all of it is JSON in a checkpoint's notes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minigpt2.alignment.completions import Completion
from minigpt2.alignment.kl_objective import adapted
from minigpt2.alignment.log_probs import Answer, batch_of_answers, by_answer, with_columns
from minigpt2.alignment.on_policy import (
    AT_ONCE,
    MINIBATCHES,
    Observe,
    OnPolicyData,
    Phases,
    Score,
    ignore,
)
from minigpt2.alignment.ppo import Learnt, Returns, for_tuning, learn_from, minibatches
from minigpt2.alignment.value_function import values_of
from minigpt2.backend import Array
from minigpt2.data.batches import EpochBatches, StepBatches
from minigpt2.model.batch import Batch
from minigpt2.model.parameters import Parameters


class PhaseOptions(NamedTuple):
    """How a phase is rewarded, and cut into steps."""

    beta: float = 0.05  # of (41.1), at the start
    target_kl: float = 0.0  # of an answer; above 0, β follows it
    horizon: float = 10_000.0  # answers
    max_kl: float = 0.0  # of an answer; 0: without a bound
    minibatches: int = 1  # B
    micro_batch: int = 8  # answers
    tuning: float = 0.0  # c_x of (43.3)
    returns: Returns = Returns()


class Phase(NamedTuple):
    """The answers of a phase, and what is learnt from each."""

    answers: list[Completion]
    learnt: list[Learnt]
    numbers: dict[str, float]  # for the log

    def as_json(self) -> dict[str, Any]:
        """Return lists of numbers, which are exact; the prompts are left out."""
        return {
            "answers": [list(answer[1:]) for answer in self.answers],
            "learnt": [[part.tolist() for part in parts] for parts in self.learnt],
            "numbers": self.numbers,
        }

    @classmethod
    def of_json(cls, stored: dict[str, Any], prompts: Sequence[list[int]]) -> "Phase":
        """Return the phase that was stored, whose answers are to these prompts."""
        pairs = zip(prompts, stored["answers"], strict=True)
        answers = [Completion(prompt, *rest) for prompt, rest in pairs]
        learnt = [Learnt(*map(np.array, parts)) for parts in stored["learnt"]]
        return cls(answers, learnt, stored["numbers"])


class PPOData(OnPolicyData):
    """The steps of PPO: the first of a phase draws its answers, all of it learn from them."""

    def __init__(
        self,
        phases: Phases,
        score: Score,
        decode: Callable[[Sequence[int]], str],
        options: PhaseOptions,
        *,
        reference: Parameters,
        tuning: EpochBatches | None = None,
        notes: dict[str, Any] | None = None,
        observe: Observe = ignore,
    ):
        """`tuning` has examples of instruction tuning.

        Raises ValueError if the steps of a phase are not whole epochs over its minibatches.
        """
        if phases.steps_per_phase % options.minibatches:
            raise ValueError("a phase has a whole number of epochs, each with all minibatches")
        super().__init__(phases, score, decode, reference=reference, notes=notes, observe=observe)
        self.options, self.tuning = options, tuning
        self.first = False  # whether the step that was made last is the first of its phase

    def at(self, epoch: int, position: int) -> StepBatches:
        """Return the step at a place; if it is the first of its phase, draw the answers.

        Raises UserError for a score that is not a number, and a KL over its bound.
        """
        number, step = self.phases.at(position)
        phase = self.phase(number, position)
        self.first, self.numbers = step == 0, phase.numbers
        k, b = divmod(step, self.options.minibatches)
        rng = np.random.default_rng([self.phases.state.seed, MINIBATCHES, number, k])
        chosen = minibatches(len(phase.answers), self.options.minibatches, rng)[b]
        batches = self.batches(phase, chosen.tolist())
        if self.tuning:
            tokens = sum(len(batch.rows) for batch in batches)
            place, index = divmod(position, self.tuning.steps)
            examples = self.tuning.at(place, index * self.tuning.batch_size).batches
            batches += for_tuning(examples, tokens, self.options.tuning)
        return StepBatches(batches, epoch, position + 1)

    def phase(self, number: int, position: int) -> Phase:
        """Return a phase: the stored one, if it is that, else a new one, which is stored."""
        prompts = [self.phases.prompts[i] for i in self.phases.chosen(number)]
        wanted = [prompt for prompt in prompts for _ in range(self.phases.samples)]
        stored = self.notes.get("phase")
        if stored and stored["number"] == number:
            return Phase.of_json(stored, wanted)
        phase = self.new_phase(number, position)
        self.notes["phase"] = {"number": number, **phase.as_json()}
        return phase

    def new_phase(self, number: int, position: int) -> Phase:
        """Draw the answers of a phase, and compute what is learnt from them."""
        options = self.options
        answers, scores, log_ratios, summary = self.draw(number, position + 1, options.max_kl)
        assert log_ratios is not None  # there is a reference
        beta = self.notes.get("beta", options.beta)
        learnt = learn_from(
            answers, scores, log_ratios, self.values(answers), beta, options.returns
        )
        if options.target_kl and summary.kl is not None:
            kl, target = summary.kl, options.target_kl
            self.notes["beta"] = adapted(beta, kl, len(answers), target, options.horizon)
        return Phase(answers, learnt, {**summary.numbers(), "beta": beta})

    def values(self, answers: Sequence[Completion]) -> list[Array]:
        """Return the values before the tokens of each answer."""
        result: list[Array] = []
        for start in range(0, len(answers), AT_ONCE):
            part = answers[start : start + AT_ONCE]
            batch = batch_of_answers([Answer(a.prompt, a.ids) for a in part])
            result += by_answer(values_of(self.phases.state.compute, batch), batch)
        return result

    def batches(self, phase: Phase, chosen: list[int]) -> list[Batch]:
        """Return the chosen answers of a phase as micro-batches."""
        result = []
        for start in range(0, len(chosen), self.options.micro_batch):
            part = chosen[start : start + self.options.micro_batch]
            answers, learnt = [phase.answers[i] for i in part], [phase.learnt[i] for i in part]
            result.append(
                with_columns(
                    batch_of_answers([Answer(a.prompt, a.ids) for a in answers]),
                    old=[a.log_probs for a in answers],
                    advantage=[each.advantages for each in learnt],
                    value=[each.values for each in learnt],
                    **{"return": [each.returns for each in learnt]},
                )
            )
        return result
