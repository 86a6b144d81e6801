"""Truncation: what happens to an example that is longer than the context.

The model has T rows.  Each reads one token and predicts the next, so T + 1 tokens fit: the last
one is only a target.  An example has P prompt tokens and A answer tokens, end-of-text included.
In a conversation, the last answer is the answer, and all before it is the prompt.  A longer
example is cut by one of three policies:

    answer   cut the end of the answer; cut the prompt, too, only where it alone exceeds half of
             the context
    prompt   cut the prompt, down to one token, until the whole answer fits; if that is not
             enough, also cut the end of the answer
    drop     leave the example out

So the prompt has room for this many tokens, by `answer` and by `prompt`:
    max(1, ⌊T/2⌋, T + 1 − A),  max(1, T + 1 − A)                   (25.1)

An answer whose end is cut gets no end-of-text, since it does not end there.  What a prompt loses,
in this order, until it fits:

    1. its oldest exchanges, each as a whole
    2. the middle of its input
    3. the middle of its instruction, which keeps half of the room
    4. the middle of its opening or system message
    5. more of the instruction
    6. the rest, from its start: the heading of the answer stays longest

A cut may fall within a character that several tokens spell.

Where a model answers a question, its prompt is cut in the same way, so the answer has room.  All
cuts are counted.  A plain text is split, not cut: each piece begins with the last token of the
piece before, so every token is predicted once.

Example: a prompt 1 2 3 with the answer 4 5 9
    In contexts of 5, 4, 3, 2 and 1 rows:
    >>> example = Example([1, 2, 3, 4, 5, 9], [False, False, False, True, True, True])
    >>> [truncate(example, context, "answer").ids for context in (5, 4, 3, 2, 1)]
    [[1, 2, 3, 4, 5, 9], [2, 3, 4, 5, 9], [3, 4, 5, 9], [3, 4, 5], [3, 4]]

    The prompt 1 to 7, of which 2 to 5 are the instruction, in the context of 8 rows, with an answer
    of 4 and of 7 tokens.  By (25.1) it keeps 5 of its tokens, and 4:
    >>> from minigpt2.data.examples import Span
    >>> def cut(answer):
    ...     ids = [*range(1, 8), *answer]
    ...     is_answer = [False] * 7 + [True] * len(answer)
    ...     return truncate(Example(ids, is_answer, (Span("instruction", 1, 5),)), 8).ids
    >>> cut([11, 12, 13, 99])
    [1, 2, 5, 6, 7, 11, 12, 13, 99]
    >>> cut([11, 12, 13, 14, 15, 16, 99])
    [1, 2, 6, 7, 11, 12, 13, 14, 15]
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from minigpt2.data.examples import NOTHING, Example, Removed
from minigpt2.errors import UserError

Policy = Literal["answer", "prompt", "drop"]


@dataclass
class Cuts:
    """How many examples were cut or dropped, and how many tokens that removed."""

    examples: int = 0  # all, cut or not
    answers: int = 0  # examples whose answer lost its end
    prompts: int = 0  # examples whose last prompt lost something
    inputs: int = 0  # of these: in the input
    instructions: int = 0  # of these: in the instruction
    no_question: int = 0  # of these: nothing is left of the instruction
    conversations: int = 0  # examples that lost their oldest exchanges
    dropped: int = 0
    answer_tokens: int = 0
    prompt_tokens: int = 0
    exchange_tokens: int = 0
    dropped_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All tokens that were removed."""
        return sum(count for name, count in vars(self).items() if name.endswith("_tokens"))

    @property
    def is_any(self) -> bool:
        """Whether an example was cut or dropped."""
        return bool(self.answers or self.prompts or self.conversations or self.dropped)

    def __add__(self, other: "Cuts") -> "Cuts":
        """Return the sum of both, count by count."""
        return Cuts(**{name: count + getattr(other, name) for name, count in vars(self).items()})


def prompt_room(context: int, answer: int, policy: Policy) -> int:
    """Return how many tokens a prompt may have, given those of its answer."""
    least = 1 if policy == "prompt" else context // 2
    return max(1, least, context + 1 - answer)  # (25.1)


def truncate(example: Example, context: int, policy: Policy = "answer") -> Example | None:
    """Return an example that fits `context` rows; None if the policy drops it."""
    if len(example.ids) <= context + 1:
        return example
    if policy == "drop":
        return None
    before = example.last_answer
    answer = len(example.ids) - before
    stays, removed = cut_prompt(example, prompt_room(context, answer, policy))
    at_end = max(0, len(stays) + answer - (context + 1))
    stays += range(before, len(example.ids) - at_end)
    return Example(
        ids=[example.ids[i] for i in stays],
        # nothing before the first token could predict it: it no longer counts as an answer's
        is_answer=[False, *(example.is_answer[i] for i in stays[1:])],
        removed=removed._replace(answer=at_end),
    )


def fit_prompt(
    example: Example, context: int, policy: Policy = "answer", new_tokens: int | None = None
) -> list[int]:
    """Return the ids of an example's prompt as `truncate` cuts it, to generate its answer.

    If the answer is not known yet, it has room for `new_tokens`, or for a quarter of the context if
    that is less, but for one token at least.  A question is never dropped.
    """
    answer = len(example.ids) - example.last_answer
    if new_tokens is not None:
        answer = max(1, min(new_tokens, context // 4))
    stays, _ = cut_prompt(example, prompt_room(context, answer, policy))
    return [example.ids[i] for i in stays]


def cut_prompt(example: Example, room: int) -> tuple[list[int], Removed]:
    """Return which tokens stay of a prompt that has room for so many, and what was cut."""
    stays = list(range(example.last_answer))
    if len(stays) <= room:
        return stays, NOTHING
    removed: Counter[str] = Counter()
    oldest: set[int] = set()
    for span in spans_of(example, "exchange"):
        if len(stays) - len(oldest) > room:
            oldest.update(span)
    stays = [i for i in stays if i not in oldest]
    removed["exchanges"] = len(oldest)
    half = max(1, room // 2)
    steps = (("input", 0), ("instruction", half), ("opening", 0), ("instruction", 0))
    for field, least in steps:
        for span in spans_of(example, field):
            inside = [i for i in stays if i in span]
            count = max(0, min(len(stays) - room, len(inside) - least))
            start = (len(inside) - count + 1) // 2  # the middle
            gone = set(inside[start : start + count])
            stays = [i for i in stays if i not in gone]
            removed["template" if field == "opening" else field] += count
    rest = max(0, len(stays) - room)
    removed["template"] += rest
    stays = stays[rest:]
    question = {i for span in spans_of(example, "instruction") for i in span}
    no_question = bool(question) and question.isdisjoint(stays)
    return stays, Removed(**removed, no_question=no_question)


def spans_of(example: Example, field: str) -> list[range]:
    """Return the places of the tokens that are so named, run by run."""
    return [range(span.start, span.stop) for span in example.spans if span.field == field]


def split_text(text: Example, context: int) -> list[Example]:
    """Split a plain text into examples of at most `context` rows."""
    starts = range(0, len(text.ids) - 1, context)
    pieces = [text.ids[start : start + context + 1] for start in starts]
    return [Example(ids, [False] + [True] * (len(ids) - 1), is_text=True) for ids in pieces]


def fit_to_context(example: Example, context: int, policy: Policy = "answer") -> list[Example]:
    """Return what fits `context` rows: the example, cut or not; nothing; or a text's pieces."""
    if example.is_text:
        return split_text(example, context)
    shorter = truncate(example, context, policy)
    return [shorter] if shorter else []


def truncate_all(
    examples: Iterable[Example], context: int, policy: Policy = "answer"
) -> tuple[list[Example], Cuts]:
    """Fit all examples to the context, and count the cuts."""
    fitting: list[Example] = []
    removed: list[Removed] = []
    dropped: list[int] = []  # tokens
    number = 0
    for example in examples:
        number += 1
        fitted = fit_to_context(example, context, policy)
        fitting += fitted
        if not fitted:
            dropped.append(len(example.ids))
        elif fitted[0].removed is not NOTHING:
            removed.append(fitted[0].removed)
    return fitting, count_cuts(number, removed, dropped)


def count_cuts(examples: int, removed: Sequence[Removed], dropped: Sequence[int]) -> Cuts:
    """Count cuts: of all examples, what those that were cut lost, and the tokens of those dropped.

    >>> count_cuts(5, [Removed(input=2, answer=1), Removed(answer=4)], [9]).tokens
    16
    """
    return Cuts(
        examples=examples,
        answers=sum(r.answer > 0 for r in removed),
        prompts=sum(r.prompt > 0 for r in removed),
        inputs=sum(r.input > 0 for r in removed),
        instructions=sum(r.instruction > 0 for r in removed),
        no_question=sum(r.no_question for r in removed),
        conversations=sum(r.exchanges > 0 for r in removed),
        dropped=len(dropped),
        answer_tokens=sum(r.answer for r in removed),
        prompt_tokens=sum(r.prompt for r in removed),
        exchange_tokens=sum(r.exchanges for r in removed),
        dropped_tokens=sum(dropped),
    )


def require_examples(examples: Sequence[Example], cuts: Cuts, context: int) -> None:
    """Raise UserError if all examples were dropped."""
    if cuts.dropped and not examples:
        raise UserError(
            f"every example is longer than the context of {context}, so all {cuts.examples:,} are "
            "dropped: use a larger context, or cut them instead (truncate: answer or prompt)"
        )
