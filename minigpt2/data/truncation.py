"""Truncation: what becomes of an example that is longer than the context.

A row of the model predicts the next token, so T rows hold T + 1 tokens, the last of which is a
target only.  Of a longer example is cut

    prompt   first what comes before the last answer, at its start, down to one token; then the
             answer, at its end
    answer   first the last answer, at its end, down to one token; then what comes before it, at
             its start
    drop     everything: the example is left out

In a conversation earlier answers are among what comes before.  An answer that is cut at its end
gets no end-of-text, since it does not end there.  What is cut is counted.

A plain text is not cut but divided: each piece goes on from the last token of the one before, so
every token is predicted once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from minigpt2.data.examples import Example
from minigpt2.errors import UserError

Policy = Literal["prompt", "answer", "drop"]
POLICIES = get_args(Policy)


@dataclass
class Cuts:
    """How many examples lost something, by kind, and how many tokens were lost."""

    examples: int = 0
    prompts: int = 0  # examples that lost prompt tokens
    answers: int = 0  # examples that lost answer tokens
    dropped: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0

    def __add__(self, other: "Cuts") -> "Cuts":
        """Return the cuts of both."""
        return Cuts(
            *(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True))
        )


def truncate(example: Example, context: int, policy: Policy = "prompt") -> Example | None:
    """Return an example that fits `context` rows; None if it does not and is dropped."""
    over = len(example.ids) - (context + 1)
    if over <= 0:
        return example
    if policy == "drop":
        return None
    before, answer = example.last_answer, len(example.ids) - example.last_answer
    at_start = min(over, before - 1) if policy == "prompt" else max(0, over - (answer - 1))
    return cut(example, at_start, over - at_start)


def pieces(text: Example, context: int) -> list[Example]:
    """Divide a text into examples of at most `context` rows."""
    starts = range(0, len(text.ids) - 1, context)
    parts = [text.ids[start : start + context + 1] for start in starts]
    return [Example(ids, [False] + [True] * (len(ids) - 1), is_text=True) for ids in parts]


def fit(example: Example, context: int, policy: Policy = "prompt") -> list[Example]:
    """Return what is left of an example within `context` rows: one, none, or a text's pieces."""
    if example.is_text:
        return pieces(example, context)
    kept = truncate(example, context, policy)
    return [kept] if kept else []


def cut(example: Example, at_start: int, at_end: int) -> Example:
    """Return an example without some tokens at its start and at its end.

    Its first token has nothing before it that could predict it; one of an answer is lost, too.
    """
    kept = slice(at_start, len(example.ids) - at_end)
    is_answer = [False, *example.is_answer[kept][1:]]
    gone = example.is_answer[:at_start] + example.is_answer[kept.stop :]
    answer_cut = sum(example.is_answer) - sum(is_answer)
    return Example(example.ids[kept], is_answer, gone.count(False), answer_cut)


def lost(example: Example, kept: list[Example]) -> Cuts:
    """Count what became of one example."""
    if not kept:
        answer = sum(example.is_answer)
        return Cuts(1, 0, 0, 1, len(example.ids) - answer, answer)
    cut = kept[0].prompt_cut, kept[0].answer_cut
    return Cuts(1, cut[0] > 0, cut[1] > 0, 0, *cut)


def truncate_all(
    examples: Iterable[Example], context: int, policy: Policy = "prompt"
) -> tuple[list[Example], Cuts]:
    """Truncate all examples, and count what is lost; raises UserError if nothing is left."""
    kept: list[Example] = []
    cuts = Cuts()
    for example in examples:
        fitting = fit(example, context, policy)
        cuts += lost(example, fitting)
        kept += fitting
    if cuts.examples and not kept:
        raise UserError(
            f"all {cuts.examples} examples are longer than the context of {context}, and all are "
            "dropped: raise context, or cut them instead (truncate: prompt or answer)"
        )
    return kept, cuts
