"""Token forest: what is laid out, what is supervised, what is shared."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.data.forest import (
    Branch,
    Segment,
    build_prefix_trees,
    common_prefix,
    lay_out,
    prepend_prompt,
)

quick = settings(deadline=None, max_examples=60)


def test_a_tree_of_depth_three_spelt_out():
    leaf = Segment([40, 41, 42], [1, 0, 2])
    single = Segment([50], [1])
    deep = Segment([20, 21], [1, 1], [leaf, single])
    root = Segment([10, 11, 12], [0, 0, 1], [deep, Segment([30, 31], [0, 1])])
    batch = lay_out([root, Segment([60, 61], [0, 1])])
    #                              10 11 12 20 21 40 41 30 60
    assert batch.ids.tolist() == [10, 11, 12, 20, 21, 40, 41, 30, 60]
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 5, 6, 3, 0]
    assert batch.end.tolist() == [8, 8, 8, 7, 7, 7, 7, 8, 9]
    assert batch.rows.tolist() == [1, 2, 3, 4, 6, 4, 7, 8]
    assert batch.targets.tolist() == [12, 20, 21, 40, 42, 50, 31, 61]
    assert batch.weights.tolist() == [1, 1, 1, 1, 2, 1, 1, 1]


def test_indices_are_whole_numbers_and_weights_are_not():
    for batch in (lay_out([Segment([1, 2], [0, 1])]), lay_out([Segment([1], [0])]), lay_out([])):
        assert {a.dtype for a in batch[:5]} == {np.dtype(np.int64)}
        assert batch.weights.dtype == np.float64


def test_a_leafs_last_token_has_no_row():
    assert lay_out([Segment([1, 2, 3], [0, 1, 1])]).ids.tolist() == [1, 2]
    with_child = lay_out([Segment([1, 2, 3], [0, 1, 1], [Segment([4], [1])])])
    assert with_child.ids.tolist() == [1, 2, 3]


def test_the_last_row_of_a_prompt_predicts_the_first_token_of_every_answer_below():
    answers = [Segment([token, 0], [1, 1]) for token in (7, 8, 9)]
    batch = lay_out([Segment([1, 2], [0, 0], answers)])
    first = {(int(r), int(t)) for r, t in zip(batch.rows, batch.targets, strict=True) if t}
    assert first == {(1, 7), (1, 8), (1, 9)}


def test_a_segment_without_rows_hands_down_its_parents_last():
    empty = Segment([], [], [Segment([5, 6], [1, 1])])
    batch = lay_out([Segment([1, 2], [0, 0], [empty, Segment([7], [1])])])
    assert batch.ids.tolist() == [1, 2, 5] and batch.positions.tolist() == [0, 1, 2]
    assert batch.end.tolist() == [3, 3, 3]
    assert batch.rows.tolist() == [1, 2, 1] and batch.targets.tolist() == [5, 6, 7]


def test_the_first_token_of_a_root_cannot_be_a_target():
    for roots in ([Segment([1, 2], [1, 1])], [Segment([], [], [Segment([1], [1])])]):
        with pytest.raises(ValueError, match="root"):
            lay_out(roots)


def test_tokens_and_weights_must_be_as_many():
    with pytest.raises(ValueError):
        lay_out([Segment([1, 2, 3], [0, 1])])


def test_common_prefix():
    assert common_prefix([[1, 2, 3], [1, 2, 4], [1, 2]]) == 2
    assert common_prefix([[1, 2], [1, 2]]) == 2
    assert common_prefix([[1, 2], [2, 1]]) == common_prefix([[1], []]) == 0


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=6))
@quick
def test_common_prefix_is_the_longest(sequences):
    k = common_prefix(sequences)
    assert len({tuple(s[:k]) for s in sequences}) == 1
    assert len({tuple(s[: k + 1]) for s in sequences}) > 1 or k == min(map(len, sequences))


def supervised(batch):
    """How often each (tokens that the row sees, target, weight) is in a batch."""
    counts = Counter()
    for row, target, weight in zip(batch.rows, batch.targets, batch.weights, strict=True):
        seen = [j for j in range(row + 1) if row < batch.end[j]]
        assert batch.positions[seen].tolist() == list(range(len(seen)))
        counts[(*batch.ids[seen].tolist(), "->", int(target), float(weight))] += 1
    return counts


def one_by_one(examples):
    """The batches of examples that share nothing."""
    return [lay_out([prepend_prompt(Branch(prompt, rest))]) for prompt, rest in examples]


prompts = st.lists(st.integers(0, 2), min_size=1, max_size=8)
answers = st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0.0, 0.5, 1.0])), min_size=1)
rests = answers.map(lambda pairs: Segment(*map(list, zip(*pairs, strict=True))))
examples = st.lists(st.tuples(prompts, rests), min_size=1, max_size=8)


@given(examples, st.integers(0, 12))
@quick
def test_sharing_changes_nothing_that_is_supervised(examples, min_saving):
    expected = sum((supervised(batch) for batch in one_by_one(examples)), Counter())
    assert supervised(lay_out(build_prefix_trees(examples, min_saving))) == expected


@given(examples, st.integers(0, 12))
@quick
def test_sharing_never_costs_a_row(examples, min_saving):
    alone = sum(len(batch.ids) for batch in one_by_one(examples))
    assert len(lay_out(build_prefix_trees(examples, min_saving)).ids) <= alone


def rows_of(prompts, min_saving):
    """How many rows prompts take, each with an answer of one token, which has none."""
    return len(
        lay_out(build_prefix_trees([(p, Segment([9], [1])) for p in prompts], min_saving)).ids
    )


def test_a_shared_preamble_takes_its_rows_once():
    preamble = list(range(20))
    alike = [preamble + [100 + k] * 3 for k in range(5)]
    assert rows_of(alike, 8) == 20 + 5 * 3 and rows_of(alike, 81) == 5 * 23


def test_equal_prompts_take_their_rows_once():
    assert rows_of([[1, 2, 3, 4, 5, 6, 7, 8]] * 4, 8) == 8


def test_what_prompts_share_may_branch_again():
    trunk, left, right = [1] * 10, [2] * 10, [3] * 10
    four = [trunk + side + [k] for side in (left, right) for k in (4, 5)]
    assert rows_of(four, 8) == 10 + 10 + 2 + 10 + 2


def test_prompts_share_where_that_saves_as_many_rows_as_asked():
    two = [[1] * 4 + [2] + [k] * 2 for k in (3, 4)]  # 5 in common
    assert [rows_of(two, min_saving) for min_saving in (4, 5, 6)] == [9, 9, 14]
    three = [[1] * 4 + [k] * 2 + [5] for k in (2, 3, 4)]  # 4 in common, saved twice
    assert [rows_of(three, min_saving) for min_saving in (7, 8, 9)] == [13, 13, 21]


def test_prompts_share_wherever_that_saves_enough_also_if_another_prompt_begins_like_them():
    alike = [1, *[2] * 20]
    assert rows_of([alike, alike], 8) == 21
    assert rows_of([alike, alike, [1, 3]], 8) == 21 + 2


def test_a_prompt_has_no_weight_by_default():
    child = Segment([9], [1])
    joined = prepend_prompt(Branch([1, 2], Segment([3, 4], [0.5, 1.0], [child])))
    assert joined == Segment([1, 2, 3, 4], [0, 0, 0.5, 1], [child])


def test_weights_of_a_shared_prompt_add_up_token_by_token():
    branches = [
        Branch([1, 2, 3], Segment([7], [1]), prompt_weights=[0, 0.5, 0.25]),
        Branch([1, 2, 4], Segment([8], [1]), prompt_weights=[0, 2.0, 1.0]),
    ]
    (tree,) = build_prefix_trees(branches, min_saving=1)
    assert tree.ids == [1, 2] and tree.weights == [0, 2.5]
    assert [child.weights for child in tree.children] == [[0.25, 1], [1.0, 1]]


def test_examples_are_not_modified():
    rest = Segment([5], [1])
    examples = [([1, 2, 3], rest), ([1, 2, 4], rest)]
    build_prefix_trees(examples, 1)
    assert examples == [([1, 2, 3], Segment([5], [1])), ([1, 2, 4], Segment([5], [1]))]


def test_arrays_of_nothing_have_the_types_of_all_others():
    some, none = lay_out([Segment([1, 2, 3], [0, 1, 1])]), lay_out([])
    assert [array.dtype for array in some[:7]] == [array.dtype for array in none[:7]]
    assert [len(array) for array in none[:7]] == [0] * 7 and not none.columns
    assert some.answers.tolist() == [-1, -1]  # no token is part of an answer


@pytest.mark.parametrize(
    ("common", "options", "trees"),
    [
        (8, {}, 1),
        (7, {}, 2),
        (2, {"min_saving": 2}, 1),
        (1, {"min_saving": 2}, 2),
        (1, {"min_saving": 1}, 1),
        (1, {"min_saving": 0}, 1),
        (0, {"min_saving": 0}, 2),
    ],
)
def test_what_two_prompts_share_is_laid_out_once_where_it_saves_enough(common, options, trees):
    prompts = [[7] * common + [one] for one in (1, 2)]
    pairs = [(prompt, Segment([9], [1])) for prompt in prompts]
    assert len(build_prefix_trees(pairs, **options)) == trees


def test_what_is_enough_is_the_same_all_the_way_down():
    prompts = [[7, 7, 5, 1], [7, 7, 5, 2], [7, 7, 6]]
    (tree,) = build_prefix_trees([(p, Segment([9], [1])) for p in prompts], min_saving=1)
    assert [child.ids for child in tree.children] == [[5], [6, 9]]
    assert [child.ids for child in tree.children[0].children] == [[1, 9], [2, 9]]


def test_what_a_shared_segment_must_save_holds_below_the_first_token_too():
    prompts = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7], [1, 9]]
    trees = build_prefix_trees([(p, Segment([8], [1])) for p in prompts], min_saving=4)
    shapes = [(tree.ids, len(tree.children)) for tree in trees]
    assert shapes == [([1, 2, 3, 4, 5], 2), ([1, 9, 8], 0)]


def test_a_root_that_would_have_to_be_predicted_is_refused():
    with pytest.raises(ValueError, match=r"^the first token of a root cannot be a target$"):
        lay_out([Segment([1], [1])])
