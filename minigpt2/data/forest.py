"""Token forest: examples become one row of tokens, and prompts share what they begin with.

Elsewhere the parts of this idea are called packed sequences (examples one after the other,
without padding), prefix sharing (a common beginning is computed once) and tree attention (a
token sees its ancestors in a prefix tree, and nothing else).

Why
    A rectangle of examples, padded to the longest, spends most of its work on
    padding and on the preamble that all prompts share.  Here the examples follow
    one another in a single row of tokens.  A beginning that several prompts share is
    in it once, and the rest of each of these examples is a child of it.

Definition
    A segment is a run of tokens.  It may have child segments, which continue it.
    Segments are laid out depth first: a segment's rows, then its first child with
    everything below it, then the next child.  The positions of a child continue
    those of its parent.  Everything below a segment follows it without a gap, so
    one integer a row,
    end[j] = the first row after the subtree of j's segment      (27.1)
    says which rows see row j: row i does if  j ≤ i < end[j]  (8.1).

What is supervised
    A token's weight says how much it counts as a target (data/loss_weights).  The
    row that predicts a token is the row before it: in its own segment, or else the
    last row of the parent segment:
    (row, target, weight) = (row before the token, the token, its weight)   (27.2)
    So the last row of a prompt predicts the first token of every answer below it.
    The last token of a leaf is a target that nothing below reads: it needs no row.
    If several prompts share a segment, each of its tokens is a target once for each
    prompt.  These targets have the same nll, so their weights add up.

Numbers to check by hand
    Two trees with six segments.  The first digit of a token names its segment:

        10 11 12 ─┬─ 20 21 ─┬─ 40 41 42
                  │         └─ 50
                  └─ 30 31
        60 61

    >>> fourth, fifth = Segment([40, 41, 42], [1, 0, 2]), Segment([50], [1])
    >>> second, third = Segment([20, 21], [1, 1], [fourth, fifth]), Segment([30, 31], [0, 1])
    >>> first, sixth = Segment([10, 11, 12], [0, 0, 1], [second, third]), Segment([60, 61], [0, 1])
    >>> batch = lay_out([first, sixth])

    The leaves' last tokens, 42, 50, 31 and 61, have no row.  Nine rows are left:
    >>> print(batch.ids)
    [10 11 12 20 21 40 41 30 60]
    >>> print(batch.positions)
    [0 1 2 3 4 5 6 3 0]
    >>> print(batch.end)
    [8 8 8 7 7 7 7 8 9]

    Which rows each row sees, by (8.1).  The row of token 30 sees 10, 11 and 12 but skips
    the segments of 20 and 40:
    >>> i, j = np.indices((9, 9))
    >>> for token, row in zip(batch.ids, (j <= i) & (i < batch.end), strict=True):
    ...     print(token, *("■" if seen else "·" for seen in row))
    10 ■ · · · · · · · ·
    11 ■ ■ · · · · · · ·
    12 ■ ■ ■ · · · · · ·
    20 ■ ■ ■ ■ · · · · ·
    21 ■ ■ ■ ■ ■ · · · ·
    40 ■ ■ ■ ■ ■ ■ · · ·
    41 ■ ■ ■ ■ ■ ■ ■ · ·
    30 ■ ■ ■ · · · · ■ ·
    60 · · · · · · · · ■

    What is supervised, one target a column: its row, the token and its weight, by (27.2).
    Row 2, token 12, predicts 20; row 4, token 21, predicts both 40 and 50:
    >>> print(np.stack([batch.rows, batch.targets, batch.weights]).astype(int))
    [[ 1  2  3  4  6  4  7  8]
     [12 20 21 40 42 50 31 61]
     [ 1  1  1  1  2  1  1  1]]
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

    `answers` has for each token the number of the example whose answer the token is part of, or
    NO_ANSWER.
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
    supervised: list[tuple[int, int, float, int]] = []

    def place(segment: Segment, position: int, parent_row: int | None) -> None:
        first_row = len(ids)
        n_rows = len(segment.ids) if segment.children else max(0, len(segment.ids) - 1)
        answers = segment.answers or [NO_ANSWER] * len(segment.ids)
        tokens = zip(segment.ids, segment.weights, answers, strict=True)
        for k, (target, weight, answer) in enumerate(tokens):
            row = first_row + k - 1 if k else parent_row
            if not weight:
                continue
            if row is None:
                raise ValueError("the first token of a root cannot be a target")
            supervised.append((row, target, weight, answer))  # (27.2)
        ids.extend(segment.ids[:n_rows])
        positions.extend(range(position, position + n_rows))
        end.extend([0] * n_rows)
        last_row = len(ids) - 1 if n_rows else parent_row
        for child in segment.children:
            place(child, position + n_rows, last_row)
        end[first_row : first_row + n_rows] = [len(ids)] * n_rows  # (27.1)

    for root in roots:
        place(root, position=0, parent_row=None)
    rows, targets, weights, answers = zip(*supervised, strict=True) if supervised else ((),) * 4
    return Batch(
        ids=np.array(ids, np.int64),
        positions=np.array(positions, np.int64),
        end=np.array(end, np.int64),
        rows=np.array(rows, np.int64),
        targets=np.array(targets, np.int64),
        weights=np.array(weights, np.float64),
        answers=np.array(answers, np.int64),
    )


def common_prefix(sequences: Sequence[list[int]]) -> int:
    """Return how many leading tokens all sequences have in common."""
    first, last = min(sequences), max(sequences)  # in lexical order, all others are between them
    pairs = zip(first, last, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)))


class Branch(NamedTuple):
    """A prompt, of which others may share the beginning, and the segment that continues it."""

    prompt: list[int]
    rest: Segment
    prompt_weights: Sequence[float] = ()  # of the prompt's tokens as targets; empty: all are 0


def build_prefix_trees(
    examples: Sequence[tuple[list[int], Segment] | Branch], min_saving: int = 8, shared: int = 0
) -> list[Segment]:
    """Build prefix trees (tries) from branches, or from pairs of a prompt and its rest.

    Prompts share a segment wherever that saves `min_saving` rows or more.  `shared` says how many
    leading tokens the prompts are known to have in common.

    >>> prompts = ([1, 2, 3, 4], [1, 2, 3, 5], [6])
    >>> trees = build_prefix_trees([(p, Segment([9], [1])) for p in prompts], min_saving=1)
    >>> [(tree.ids, [child.ids for child in tree.children]) for tree in trees]
    [([1, 2, 3], [[4, 9], [5, 9]]), ([6, 9], [])]
    """
    groups: dict[int | None, list[Branch]] = {}  # by the first token that may differ
    for branch in (Branch(*example) for example in examples):
        prompt = branch.prompt
        groups.setdefault(prompt[shared] if len(prompt) > shared else None, []).append(branch)
    trees: list[Segment] = []
    for token, group in groups.items():
        prefix = 0 if token is None else common_prefix([branch.prompt for branch in group])
        if prefix * (len(group) - 1) >= max(1, min_saving):
            columns = zip(*(weights_of_prompt(branch)[:prefix] for branch in group), strict=True)
            weights = [sum(column) for column in columns]
            rests = [Branch(p[prefix:], rest, w[prefix:]) for p, rest, w in group]
            children = build_prefix_trees(rests, min_saving)
            trees.append(Segment(group[0].prompt[:prefix], weights, children))
        elif len(group) > 1 and prefix:
            trees.extend(build_prefix_trees(group, min_saving, shared=prefix))
        else:
            trees.extend(prepend_prompt(branch) for branch in group)
    return trees


def weights_of_prompt(branch: Branch) -> list[float]:
    """Return the weight of each token of a branch's prompt."""
    return list(branch.prompt_weights) or [0.0] * len(branch.prompt)


def prepend_prompt(branch: Branch) -> Segment:
    """Return the segment of a branch's prompt and its rest, which shares nothing."""
    prompt, rest, _ = branch
    answers = [NO_ANSWER] * len(prompt) + rest.answers if rest.answers else []
    weights = weights_of_prompt(branch) + rest.weights
    return Segment(prompt + rest.ids, weights, rest.children, answers)
