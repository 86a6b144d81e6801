"""Evaluation: the loss on held-out examples, and exact match.

Definition
    The validation losses are (20.1) and (20.2) over all examples; the batch size
    changes only rounding.
    exact match = answers equal to their reference / answers       (32.1)
    An answer is the text that greedy decoding writes before end-of-text.  It equals
    its reference if every character does, but for white space at the ends.

Example: the second answer is right in substance, but does not equal its reference
    >>> question = Record("What is 2 + 3?", "", "5")
    >>> answers = [Answer(question, "5"), Answer(question, "It is 5.")]
    >>> exact_match(answers)
    0.5
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from minigpt2.data.batches import batch_of
from minigpt2.data.examples import Example, encode
from minigpt2.data.records import Record, same_text
from minigpt2.data.template import ALPACA
from minigpt2.data.truncation import Policy, fit_prompt
from minigpt2.inference.answers import answer_prompts, most_tokens
from minigpt2.inference.model import Model
from minigpt2.model.gpt2 import loss_of
from minigpt2.model.parameters import Parameters
from minigpt2.training.losses import Losses
from minigpt2.wording import plural


class Answer(NamedTuple):
    """A question with its reference, and the model's answer."""

    record: Record
    answer: str
    within_reach: bool = True  # the reference is not longer than an answer can be

    @property
    def exact(self) -> bool:
        """Whether the answer is the reference."""
        return same_text(self.answer, self.record.output)


def validation_losses(
    parameters: Parameters,
    examples: Sequence[Example],
    micro_batch: int,
    progress: Callable[[int], None] = lambda finished: None,
) -> Losses:
    """Return the losses of examples, computed `micro_batch` at a time."""
    losses = Losses()
    for start in range(0, len(examples), micro_batch):
        batch = batch_of(examples[start : start + micro_batch])
        losses.add(batch, loss_of(parameters, batch)[1])
        progress(min(micro_batch, len(examples) - start))
    return losses


class Limits(NamedTuple):
    """How long examples and answers may be, and what is cut of longer examples."""

    context: int
    policy: Policy = "answer"
    max_new_tokens: int | None = None  # default: those of the longest reference, end-of-text too


def answer_all(
    model: Model,
    records: Sequence[Record],
    limits: Limits,
    progress: Callable[[int], None] = lambda finished: None,
) -> list[Answer]:
    """Answer every record's question by greedy decoding; prompts are cut as in training."""
    parameters, tokenizer, template = model
    examples = [encode(record, tokenizer, template or ALPACA) for record in records]
    prompts = [fit_prompt(example, limits.context, limits.policy) for example in examples]
    references = [len(example.ids) - example.last_answer for example in examples]
    longest = limits.max_new_tokens
    if longest is None:
        longest = max(references, default=0)
    texts = answer_prompts(model, prompts, longest, progress)
    rows = parameters.config.n_positions
    room = [most_tokens(prompt, longest, rows) for prompt in prompts]
    columns = zip(records, texts, references, room, strict=True)
    return [
        Answer(record, text, within_reach=reference - 1 <= most)
        for record, text, reference, most in columns
    ]


def exact_match(answers: Sequence[Answer]) -> float:
    """Return the share of answers that equal their reference, from 0 to 1."""
    return sum(answer.exact for answer in answers) / len(answers)  # (32.1)


def describe_reach(answers: Sequence[Answer]) -> str:
    """Return how many references are longer than an answer can be, as the end of a line.

    >>> describe_reach([Answer(Record("?", "", "yes, and more"), "yes", within_reach=False)])
    '; 1 reference is longer than an answer can be'
    """
    beyond = sum(not answer.within_reach for answer in answers)
    verb = "is" if beyond == 1 else "are"
    return f"; {plural(beyond, 'reference')} {verb} longer than an answer can be" if beyond else ""
