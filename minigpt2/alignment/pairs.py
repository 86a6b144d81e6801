"""Preference pairs: a prompt with two answers, of which somebody prefers one.

Why
    Nobody can write down what makes an answer good, but everybody can say which of two is
    better.  A pair has the chosen answer and the rejected one.  A reward model (chapter 36)
    and DPO (chapter 38) learn from pairs alone.

Definition
    As in tuning, prompt and answers are encoded apart and their ids joined, so the prompt has
    the same ids before both.  Each answer ends with end-of-text, which belongs to it: a model
    that learns which answer is better must learn where to stop.  In a conversation, the last
    answer is the one that is compared; all before it is the prompt.

    In the forest (27.1) the two answers are children of their prompt, so its rows are
    computed once.  With P prompt tokens and the answers c and r of |c| and |r| tokens, whose
    last tokens need no row, a pair takes
    P + (|c| − 1) + (|r| − 1) rows                                 (34.1)
    where two sequences padded to one length take 2 (P + max(|c|, |r|) − 1).

    For validation a share of the prompts is set apart, each with all of its pairs.  With one pair
    of a prompt to train on and another to validate on, a model would be tested on what it has seen.

    A pair whose two answers are equal says nothing, whatever loss it has: it is left out, and
    counted.

    Prompt and answer must fit the context of T rows, the last token, too: a reward model
    reads the row of the end-of-text.  The longer answer decides how a pair is cut, as an
    example is (data/truncation) that has this answer and T − 1 rows; the prompt stays the
    same before both answers, and the shorter answer loses its end only where it does not fit
    either:
    an answer keeps T − P tokens, where P counts what is left of the prompt   (34.2)
    An answer whose end is cut has no end-of-text.  A pair that the cut made equal is left out.

Example: the prompt 1 2 3, chosen 4 5 9, rejected 4 5 6 7 9, where 9 is the end-of-text
    >>> pair = Pair([1, 2, 3], [4, 5, 9], [4, 5, 6, 7, 9], "long")
    >>> pair.rows, 2 * (3 + 5 - 1)  # (34.1), and padded
    (9, 14)

    In a context of 6 rows, the prompt may have max(⌊5/2⌋, 6 − 5) = 2 tokens by (25.1), and
    both answers 4 by (34.2).  In 4 rows it has 1, and 3 are left:
    >>> chosen, rejected = pair.examples
    >>> fit_pair(chosen, rejected, 6, "answer")[0]
    Pair(prompt=[2, 3], chosen=[4, 5, 9], rejected=[4, 5, 6, 7], kind='')
    >>> fit_pair(chosen, rejected, 4, "answer")[0]
    Pair(prompt=[3], chosen=[4, 5, 9], rejected=[4, 5, 6], kind='')
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from minigpt2.data.batches import split
from minigpt2.data.examples import NOTHING, Example, Removed, encode
from minigpt2.data.formats import PREFERENCE_FORMATS
from minigpt2.data.records import Record
from minigpt2.data.template import Template
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.data.truncation import Cuts, Policy, count_cuts, truncate
from minigpt2.errors import UserError
from minigpt2.wording import plural


class Pair(NamedTuple):
    """The ids of a prompt and of two answers, which end with end-of-text unless they are cut."""

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]
    kind: str = ""  # what is wrong with the rejected answer, for statistics

    @property
    def rows(self) -> int:
        """The rows that a pair takes in the forest."""
        return len(self.prompt) + len(self.chosen) - 1 + len(self.rejected) - 1  # (34.1)

    @property
    def examples(self) -> tuple[Example, Example]:
        """The prompt with each answer: chosen, rejected."""
        before = [False] * len(self.prompt)
        chosen, rejected = (
            Example([*self.prompt, *answer], [*before, *[True] * len(answer)])
            for answer in (self.chosen, self.rejected)
        )
        return chosen, rejected


class PairSet(NamedTuple):
    """Pairs that fit the context, and what became of the others."""

    pairs: list[Pair]
    places: list[int]  # of each pair among the records
    equal: int  # left out, as their answers are equal
    equal_when_cut: int  # left out, as their answers are equal after truncation
    cuts: Cuts  # of pairs that are not equal

    @property
    def notes(self) -> list[str]:
        """Sentences about the pairs that were left out because their answers are equal."""
        notes = []
        if self.equal:
            notes.append(f"left out {plural(self.equal, 'pair')} whose two answers are equal")
        if self.equal_when_cut:
            count = plural(self.equal_when_cut, "pair")
            notes.append(f"left out {count} whose two answers are equal after truncation")
        return notes


def encode_pair(
    record: Record, tokenizer: Tokenizer, template: Template
) -> tuple[Example, Example]:
    """Return a record as two examples of any length, with the chosen and the rejected answer."""
    chosen = encode(record, tokenizer, template)
    answer = [*tokenizer.encode(record.rejected or ""), tokenizer.end_of_text]
    ids = [*chosen.ids[: chosen.last_answer], *answer]
    is_answer = [*chosen.is_answer[: chosen.last_answer], *[True] * len(answer)]
    return chosen, Example(ids, is_answer, chosen.spans)


def fit_pair(
    chosen: Example, rejected: Example, context: int, policy: Policy
) -> tuple[Pair | None, Removed]:
    """Return a pair that fits `context` rows, None if the policy drops it; and what was cut.

    The last token of an answer needs a row, too.
    """
    longer = max(chosen, rejected, key=lambda example: len(example.ids))
    fitted = truncate(longer, context - 1, policy)
    if fitted is None:
        return None, NOTHING
    cut = fitted.removed
    prompt = fitted.ids[: len(fitted.ids) + cut.answer - (len(longer.ids) - longer.last_answer)]
    room = context - len(prompt)  # (34.2)
    answers = [example.ids[example.last_answer :] for example in (chosen, rejected)]
    lost = sum(max(0, len(answer) - room) for answer in answers)
    return Pair(prompt, answers[0][:room], answers[1][:room]), cut._replace(answer=lost)


def read_pairs(
    records: Iterable[Record],
    tokenizer: Tokenizer,
    template: Template,
    context: int,
    policy: Policy = "answer",
    *,
    name: str = "the data",
) -> PairSet:
    """Return the preferences among records as pairs that fit `context` rows.

    Raises UserError, with the name of the data, if a record has no rejected answer.
    """
    pairs, places, removed, dropped = [], [], [], []
    number = equal = equal_when_cut = 0
    for place, record in enumerate(records):
        if record.rejected is None:
            raise UserError(
                f"{name} has no field 'rejected': preferences have a chosen and a rejected "
                f"answer; expected one of {'; '.join(map(str, PREFERENCE_FORMATS))}"
            )
        if record.output == record.rejected:
            equal += 1
            continue
        number += 1
        chosen, rejected = encode_pair(record, tokenizer, template)
        pair, lost = fit_pair(chosen, rejected, context, policy)
        if pair is None:
            dropped.append(len(chosen.ids) + len(rejected.ids))
        elif pair.chosen == pair.rejected:
            equal_when_cut += 1
        else:
            pairs.append(pair._replace(kind=record.kind))
            places.append(place)
            removed.append(lost)
    cuts = count_cuts(number, [lost for lost in removed if lost != NOTHING], dropped)
    return PairSet(pairs, places, equal, equal_when_cut, cuts)


def require_pairs(pair_set: PairSet, name: str, context: int) -> None:
    """Raise UserError if nothing is left of the data set with this name."""
    if pair_set.pairs:
        return
    equal, cut, dropped = pair_set.equal, pair_set.equal_when_cut, pair_set.cuts.dropped
    if not cut and not dropped:
        raise UserError(
            f"{name}: the two answers of every pair are equal: there is nothing to prefer"
        )
    parts = (
        (equal, "have equal answers"),
        (cut, f"have equal answers when cut to the context of {context}"),
        (dropped, f"are longer than the context of {context} and dropped"),
    )
    reasons = ", ".join(f"{count:,} {what}" for count, what in parts if count)
    raise UserError(
        f"{name}: no pair is left: {reasons}; use a larger context, or another truncate"
    )


def lengths_of_pairs(pairs: Sequence[Pair]) -> dict[str, int]:
    """Return how many tokens the prompts of pairs have, each counted once, and their answers."""
    return {
        "prompt_tokens": sum(len(pair.prompt) for pair in pairs),
        "answer_tokens": sum(len(pair.chosen) + len(pair.rejected) for pair in pairs),
    }


def split_pairs(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the places of the pairs to train on, and of those for validation.

    Those are all pairs of a `share` of the prompts, as `split` chooses them.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for place, pair in enumerate(pairs):
        by_prompt.setdefault(tuple(pair.prompt), []).append(place)
    training, held_out = split(list(by_prompt.values()), share, seed)
    return sorted(chain(*training)), sorted(chain(*held_out))
