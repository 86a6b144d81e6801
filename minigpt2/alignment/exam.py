"""Exam: a model answers questions, and what its answers are like is counted.

It answers twice, by greedy decoding and by sampling at temperature 1.  The two differ much in a
small model: greedy decoding shows what it knows, samples show what training sees.  An answer is

    direct      if nothing pads it (data/almanac/padding)
    right       if its content, what is left without padding, is the reference
    exact       if it is the reference
    checked     if it ends, and its last equation is true and has the reference's result

Two exams are compared question by question: so many have become right, and so many wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from minigpt2.alignment.verifiable_rewards import reward_of
from minigpt2.data.almanac.padding import content, is_direct
from minigpt2.data.examples import encode
from minigpt2.data.records import Record, same_text
from minigpt2.data.template import ALPACA
from minigpt2.inference.generate import generate
from minigpt2.inference.model import Model
from minigpt2.inference.sampling import GREEDY, Sampling

LONGEST = 96  # tokens of an answer; the almanac's have at most 76, padded
MODES: dict[str, Sampling] = {"greedy": GREEDY, "sampled": Sampling(temperature=1.0)}


class Written(NamedTuple):
    """An answer of a model, and whether it ended."""

    text: str
    ended: bool


Exam = dict[str, list[Written]]  # by the way of decoding


def examine(
    model: Model,
    records: Sequence[Record],
    seed: int,
    modes: Sequence[str] = tuple(MODES),
    advance: Callable[[int], None] = lambda finished: None,
) -> Exam:
    """Return the model's answers to questions in each way of decoding."""
    tokenizer, template = model.tokenizer, model.template or ALPACA
    encoded = [encode(record._replace(output=""), tokenizer, template) for record in records]
    prompts = [example.ids[: example.last_answer] for example in encoded]
    exam = {}
    for mode in modes:
        answers = generate(
            model.parameters,
            prompts,
            stop=tokenizer.end_of_text,
            max_new_tokens=LONGEST,
            sampling=MODES[mode],
            rng=np.random.default_rng(seed),
            progress=advance,
        )
        exam[mode] = [Written(tokenizer.decode(ids), len(ids) < LONGEST) for ids in answers]
    return exam


def is_right(record: Record, answer: Written) -> bool:
    """Whether the content of an answer is the reference."""
    return same_text(content(answer.text), record.output)


def is_exact(record: Record, answer: Written) -> bool:
    """Whether an answer is the reference."""
    return same_text(answer.text, record.output)


def is_checked(record: Record, answer: Written) -> bool:
    """Whether an answer ends, and its last equation is true and has the reference's result."""
    return reward_of("equation", answer.text, record.output, ended=answer.ended) > 0


MARKS: Mapping[str, Callable[[Record, Written], bool]] = {
    "direct": lambda record, answer: is_direct(answer.text),
    "right": is_right,
    "exact": is_exact,
    "checked": is_checked,
    "ended": lambda record, answer: answer.ended,
}


def marks(records: Sequence[Record], answers: Sequence[Written]) -> dict[str, int]:
    """Return how many answers have each mark, and how many there are."""
    pairs = list(zip(records, answers, strict=True))
    counts = {name: sum(mark(*pair) for pair in pairs) for name, mark in MARKS.items()}
    return {"asked": len(records), **counts}


def changed(
    records: Sequence[Record], before: Sequence[Written], after: Sequence[Written], mark: str
) -> dict[str, int]:
    """Return how many answers have got a mark, and how many have lost it."""
    columns = zip(records, before, after, strict=True)
    pairs = [(MARKS[mark](r, old), MARKS[mark](r, new)) for r, old, new in columns]
    return {"gained": pairs.count((False, True)), "lost": pairs.count((True, False))}


def stored(exam: Exam) -> dict[str, Any]:
    """Return an exam as JSON holds it."""
    return {mode: [list(answer) for answer in answers] for mode, answers in exam.items()}


def restored(values: Mapping[str, Sequence[Sequence[Any]]]) -> Exam:
    """Return an exam that was stored."""
    return {mode: [Written(*answer) for answer in answers] for mode, answers in values.items()}
