"""Token forest: examples become one row of tokens; what prompts begin with is computed once.

Why
    A rectangle of examples, padded to the longest, spends most of its work on
    padding and on the preamble that all prompts share.  Here examples stand one
    after the other in a single row, and what several prompts begin with stands
    there once, with the examples as its children.

Definition
    A segment is a run of tokens with child segments.  Segments are laid out
    depth first: a segment's rows, then its first child and all below it, then
    the next child.  Positions go on from where the parent ends.  Everything
    below a segment follows it at once, so one integer a row,
    end[j] = the first row after the subtree of j's segment      (26.1)
    says who may read row j: row i with  j ≤ i < end[j]  (8.1).

What is supervised
    A token's weight says how much it counts as a target.  The row that predicts
    it is the one before it: in its own segment, or else the parent's last one:
    (row, target, weight) = (row before the token, the token, its weight)   (26.2)
    so the last row of a prompt predicts the first token of every answer below.
    A leaf's last token is a target and nobody's context: it gets no row.
    Where several prompts share a segment, a token of it stands for as many targets;
    they have the same nll, so their weights add.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from minigpt2.model.batch import Batch

NO_ANSWER = -1


@dataclass
class Segment:
    """A run of token ids, their weights as targets, and the segments that continue it.

    `answers` says for each token which example's answer it belongs to, and -1 for none.
    """

    ids: list[int]
    weights: list[float]
    children: list["Segment"] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)  # empty: no token is part of an answer


def lay_out(roots: Sequence[Segment]) -> Batch:
    """Lay the trees out as one row of tokens.

    Raises ValueError for a root whose first token has a weight: no row predicts it.
    """
    ids: list[int] = []
    positions: list[int] = []
    end: list[int] = []
    triples: list[tuple[int, int, float, int]] = []

    def place(segment: Segment, position: int, before: int | None) -> None:
        first = len(ids)
        size = max(0, len(segment.ids) - (not segment.children))
        answers = segment.answers or [NO_ANSWER] * len(segment.ids)
        tokens = zip(segment.ids, segment.weights, answers, strict=True)
        for k, (target, weight, answer) in enumerate(tokens):
            row = first + k - 1 if k else before
            if not weight:
                continue
            if row is None:
                raise ValueError("the first token of a root cannot be a target")
            triples.append((row, target, weight, answer))  # (26.2)
        ids.extend(segment.ids[:size])
        positions.extend(range(position, position + size))
        end.extend([0] * size)
        last = len(ids) - 1 if size > 0 else before
        for child in segment.children:
            place(child, position + size, last)
        end[first : first + size] = [len(ids)] * size  # (26.1)

    for root in roots:
        place(root, 0, None)
    rows, targets, weights, answers = zip(*triples, strict=True) if triples else ((),) * 4
    return Batch(
        np.array(ids, np.int64),
        np.array(positions, np.int64),
        np.array(end, np.int64),
        np.array(rows, np.int64),
        np.array(targets, np.int64),
        np.array(weights, np.float64),
        np.array(answers, np.int64),
    )


def common_prefix(sequences: Sequence[list[int]]) -> int:
    """Return how many leading tokens all sequences have in common."""
    first, last = min(sequences), max(sequences)  # all others lie between these two
    pairs = zip(first, last, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)))


class Branch(NamedTuple):
    """A prompt, the segment that continues it, and the weight of each of the prompt's tokens."""

    prompt: list[int]
    rest: Segment
    weight: float = 0.0


def grow(
    examples: Sequence[tuple[list[int], Segment] | Branch], least: int = 8, known: int = 0
) -> list[Segment]:
    """Return branches, or pairs of a prompt and its rest, as prefix trees (tries).

    Prompts that begin alike share a segment wherever that saves `least` rows or more; those of
    `examples` are known to have their first `known` tokens in common.
    """
    groups: dict[int | None, list[Branch]] = {}
    for branch in (Branch(*example) for example in examples):
        prompt = branch.prompt
        groups.setdefault(prompt[known] if len(prompt) > known else None, []).append(branch)
    trees: list[Segment] = []
    for token, group in groups.items():
        shared = 0 if token is None else common_prefix([branch.prompt for branch in group])
        if shared * (len(group) - 1) >= max(1, least):
            below = grow([b._replace(prompt=b.prompt[shared:]) for b in group], least)
            weight = sum(branch.weight for branch in group)
            trees.append(Segment(group[0].prompt[:shared], [weight] * shared, below))
        elif len(group) > 1 and shared:
            trees.extend(grow(group, least, shared))
        else:
            trees.extend(join(*branch) for branch in group)
    return trees


def join(prompt: list[int], rest: Segment, weight: float = 0.0) -> Segment:
    """Return the segment of a prompt and what continues it."""
    answers = [NO_ANSWER] * len(prompt) + rest.answers if rest.answers else []
    weights = [weight] * len(prompt) + rest.weights
    return Segment(prompt + rest.ids, weights, rest.children, answers)
