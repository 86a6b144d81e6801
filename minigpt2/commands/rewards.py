"""Rewards: what scores the answers of a run, a reward model or a program."""

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple
from zlib import crc32

from minigpt2.alignment.completions import Completion
from minigpt2.alignment.log_probs import Answer
from minigpt2.alignment.on_policy import Score
from minigpt2.alignment.reward_model import score_answers
from minigpt2.alignment.verifiable_rewards import Check, reward_of
from minigpt2.backend import to_host
from minigpt2.data.records import Record
from minigpt2.data.template import Template
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.errors import UserError
from minigpt2.inference.model import RewardModel, open_reward_model
from minigpt2.model.parameters import Parameters
from minigpt2.terminal import note
from minigpt2.wording import plural


class Reward(NamedTuple):
    """What scores answers."""

    line: str  # that describes it
    score: Score
    contents: dict[str, str]  # digests of what it reads
    parameters: Parameters | None = None  # of a reward model
    bias: float = 0.0


def text_of(answer: Sequence[int], tokenizer: Tokenizer) -> str:
    """Return the text of an answer's ids, without its end-of-text."""
    ended = bool(answer) and answer[-1] == tokenizer.end_of_text
    return tokenizer.decode(answer[: len(answer) - ended])


def by_check(
    check: Check, must_end: bool, records: Sequence[Record], tokenizer: Tokenizer
) -> Reward:
    """Return the reward of a program that compares answers with those of the records."""

    def score(answers: Sequence[Completion], numbers: Sequence[int]) -> list[float]:
        return [
            reward_of(
                check,
                text_of(answer.ids, tokenizer),
                records[number].output,
                ended=answer.ended,
                must_end=must_end,
            )
            for answer, number in zip(answers, numbers, strict=True)
        ]

    ending = ", and it ended" if must_end else ""
    return Reward(f"1 if the check {check!r} holds{ending}, else 0", score, {})


def by_model(
    name: str, library: ModuleType, tokenizer: Tokenizer, template: Template, longest: int
) -> Reward:
    """Return the reward of a reward model, for a policy with this tokenizer and template.

    `longest` is the most tokens of a prompt with its answer.  Raises UserError if there is no such
    reward model, or it cannot score this policy's answers.
    """
    model = open_reward_model(name, library, warn=note)
    require_fitting(name, model, tokenizer, template, longest)
    parameters, bias = model.parameters, model.bias

    def score(answers: Sequence[Completion], numbers: Sequence[int]) -> Sequence[float]:
        both = [Answer(answer.prompt, answer.ids) for answer in answers]
        return score_answers(parameters, both, bias).tolist()

    (flat,) = to_host(parameters.flat)
    digest = f"{crc32(flat.tobytes()):08x} {bias!r}"
    line = f"the score of {name}"
    return Reward(line, score, {"the reward model": digest}, parameters, bias)


def tokens_of(tokenizer: Tokenizer) -> list[bytes]:
    """Return the bytes of all ids."""
    return [tokenizer.bytes_of(token) for token in range(tokenizer.n_vocab)]


def require_fitting(
    name: str, model: RewardModel, tokenizer: Tokenizer, template: Template, longest: int
) -> None:
    """Raise UserError if a reward model cannot score answers of a policy."""
    if tokens_of(model.tokenizer) != tokens_of(tokenizer):
        raise UserError(
            f"{name}: the reward model has another vocabulary than the policy, so it cannot read "
            "the policy's answers"
        )
    if model.template and model.template != template:
        raise UserError(
            f"{name}: the reward model was trained with another template than the policy's, so "
            "their prompts differ: tune the policy with that one (--template), or train a reward "
            "model from it"
        )
    context = model.parameters.config.n_positions
    if longest > context:
        raise UserError(
            f"{name}: the reward model reads {plural(context, 'token')}, but a prompt with its "
            f"answer may have {longest:,}: set context to {context - 1}, or take a reward model "
            "with a longer context"
        )
