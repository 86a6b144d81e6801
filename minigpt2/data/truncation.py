"""Truncation: what happens to an example that is longer than the context.

The model has T rows.  Each reads one token and predicts the next, so T + 1 tokens fit: the last
one is only a target.  A longer example is cut by one of three policies:

    prompt   cut the start of what comes before the last answer, down to one token; if that is
             not enough, also cut the end of the last answer
    answer   cut the end of the last answer, down to one token; if that is not enough, also cut
             the start of what comes before it
    drop     leave the example out

In a conversation, what comes before the last answer includes the earlier answers.  An answer
whose end is cut gets no end-of-text, since it does not end there.  All cuts are counted.

A plain text is split, not cut: each piece begins with the last token of the piece before, so
every token is predicted once.

    A prompt 1 2 3 with the answer 4 5 9, for contexts of 5, 4, 3, 2 and 1 rows:

    >>> example = Example([1, 2, 3, 4, 5, 9], [False, False, False, True, True, True])
    >>> [truncate(example, context, "prompt").ids for context in (5, 4, 3, 2, 1)]
    [[1, 2, 3, 4, 5, 9], [2, 3, 4, 5, 9], [3, 4, 5, 9], [3, 4, 5], [3, 4]]
    >>> [truncate(example, context, "answer").ids for context in (5, 4, 3, 2, 1)]
    [[1, 2, 3, 4, 5, 9], [1, 2, 3, 4, 5], [1, 2, 3, 4], [2, 3, 4], [3, 4]]
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from minigpt2.data.examples import Example
from minigpt2.errors import UserError

Policy = Literal["prompt", "answer", "drop"]


@dataclass
class Cuts:
    """How many examples were cut or dropped, and how many tokens that removed."""

    examples: int = 0  # all, cut or not
    prompts: int = 0  # examples that lost prompt tokens
    answers: int = 0  # examples that lost answer tokens
    dropped: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0

    def __add__(self, other: "Cuts") -> "Cuts":
        """Return the sum of both, count by count."""
        return Cuts(**{name: count + getattr(other, name) for name, count in vars(self).items()})


def truncate(example: Example, context: int, policy: Policy = "prompt") -> Example | None:
    """Return an example that fits `context` rows; None if the policy drops it."""
    over = len(example.ids) - (context + 1)
    if over <= 0:
        return example
    if policy == "drop":
        return None
    before, answer = example.last_answer, len(example.ids) - example.last_answer
    at_start = min(over, before - 1) if policy == "prompt" else max(0, over - (answer - 1))
    return cut_ends(example, at_start, over - at_start)


def split_text(text: Example, context: int) -> list[Example]:
    """Split a plain text into examples of at most `context` rows."""
    starts = range(0, len(text.ids) - 1, context)
    pieces = [text.ids[start : start + context + 1] for start in starts]
    return [Example(ids, [False] + [True] * (len(ids) - 1), is_text=True) for ids in pieces]


def fit_to_context(example: Example, context: int, policy: Policy = "prompt") -> list[Example]:
    """Return what fits `context` rows: the example, cut or not; nothing; or a text's pieces."""
    if example.is_text:
        return split_text(example, context)
    shorter = truncate(example, context, policy)
    return [shorter] if shorter else []


def cut_ends(example: Example, at_start: int, at_end: int) -> Example:
    """Return an example without `at_start` tokens at its start and `at_end` at its end.

    No token before the new first token could predict it, so it no longer counts as an answer's.
    """
    stop = len(example.ids) - at_end
    is_answer = [False, *example.is_answer[at_start + 1 : stop]]
    removed = example.is_answer[:at_start] + example.is_answer[stop:]
    return Example(
        ids=example.ids[at_start:stop],
        is_answer=is_answer,
        prompt_cut=removed.count(False),
        answer_cut=sum(example.is_answer) - sum(is_answer),
    )


def count_cuts(example: Example, fitted: list[Example]) -> Cuts:
    """Count what `fit_to_context` cut from one example."""
    if not fitted:
        answer_tokens = sum(example.is_answer)
        prompt_tokens = len(example.ids) - answer_tokens
        return Cuts(1, dropped=1, prompt_tokens=prompt_tokens, answer_tokens=answer_tokens)
    prompt_tokens, answer_tokens = fitted[0].prompt_cut, fitted[0].answer_cut
    return Cuts(
        examples=1,
        prompts=int(prompt_tokens > 0),
        answers=int(answer_tokens > 0),
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
    )


def truncate_all(
    examples: Iterable[Example], context: int, policy: Policy = "prompt"
) -> tuple[list[Example], Cuts]:
    """Fit all examples to the context, and count the cuts; raises UserError if none is left."""
    fitting: list[Example] = []
    cuts = Cuts()
    for example in examples:
        fitted = fit_to_context(example, context, policy)
        cuts += count_cuts(example, fitted)
        fitting += fitted
    if cuts.examples and not fitting:
        raise UserError(
            f"all {cuts.examples} examples are longer than the context of {context}, so all are "
            "dropped: use a larger context, or cut them instead (truncate: prompt or answer)"
        )
    return fitting, cuts
