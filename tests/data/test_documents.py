"""Documents: pieces of whole units, as long as the run has come, in steps of so many rows."""

from itertools import cycle

import pytest

from minigpt2.data import documents
from minigpt2.data.documents import SHORT, DocumentBatches, as_root, longest_piece, pieces
from tests.data.small import small_tokenizer

BYTES = small_tokenizer()
STOP = BYTES.end_of_text
TEXT = "A.\nBb.\nC\nd.\nE."


@pytest.mark.parametrize(
    ("step", "longest"), [(0, 32), (35, 32), (40, 48), (45, 64), (55, 96), (56, 96), (100, 96)]
)
def test_pieces_are_short_at_first_grow_and_are_whole_at_last(step, longest):
    assert longest_piece(step, 100, 96) == longest


@pytest.mark.parametrize(
    ("longest", "parts"),
    [
        (1, ["A.", "Bb.", "C\nd.", "E."]),
        (5, ["A.", "Bb.", "C\nd.", "E."]),
        (6, ["A.\nBb.", "C\nd.", "E."]),
        (7, ["A.\nBb.", "C\nd.\nE."]),
        (100, [TEXT]),
    ],
)
def test_a_piece_holds_as_many_whole_units_as_fit(longest, parts):
    assert [BYTES.decode(ids) for ids in pieces(TEXT, BYTES, longest)] == parts


def test_a_root_begins_and_ends_with_end_of_text_and_is_cut_to_the_context():
    whole, cut = as_root([1, 2, 3], STOP, 4, 7), as_root([1, 2, 3], STOP, 3)
    assert (whole.ids, cut.ids) == ([STOP, 1, 2, 3, STOP], [STOP, 1, 2, 3])
    assert (whole.weights, cut.weights) == ([0, 1, 1, 1, 1], [0, 1, 1, 1])
    assert (whole.answers, cut.answers) == ([7] * 5, [0] * 4)
    assert whole.children == cut.children == []


def batches(steps=4, rows=11, context=8):
    """Steps of texts that are plain at first."""

    def texts():
        return cycle(["abc.\nde.", "f."]), cycle(["g" * 40])

    return DocumentBatches(texts, BYTES, context=context, steps=steps, rows=rows)


@pytest.mark.parametrize(
    ("rows", "sizes"), [(7, [[8], [3], [8]]), (10, [[8], [3], [8]]), (11, [[8, 3], [8], [8]])]
)
def test_a_step_takes_as_many_pieces_as_fit_in_its_rows(rows, sizes):
    steps = [batches(rows=rows).at(0, position) for position in range(3)]
    assert [(step.epoch, step.position) for step in steps] == [(0, 1), (0, 2), (0, 3)]
    for step, counts in zip(steps, sizes, strict=True):
        (batch,) = step.batches
        assert batch.answers.tolist() == [n for n, count in enumerate(counts) for _ in range(count)]
        assert batch.weights.tolist() == [1.0] * sum(counts)


def test_texts_are_plain_until_pieces_grow():
    one = batches(rows=24)
    texts = [BYTES.decode(one.at(0, n).batches[0].ids.tolist()) for n in range(3)]
    parts = [text.split("<|endoftext|>")[1:] for text in texts]
    plain, other = ["abc.\nde", "f."], "g" * 7
    assert parts == [plain * 2, [plain[0], other, other], [other] * 3]


def test_a_step_is_the_same_in_turn_and_out_of_turn():
    one = batches()
    in_turn = [one.at(0, position).batches[0].ids.tolist() for position in range(4)]
    for position in (3, 1, 1, 2, 0):
        assert one.at(0, position).batches[0].ids.tolist() == in_turn[position]
        assert batches().at(0, position).batches[0].ids.tolist() == in_turn[position]


def test_pieces_grow_with_each_step(monkeypatch):
    asked = []
    monkeypatch.setattr(documents, "longest_piece", lambda *place: asked.append(place) or SHORT)
    data = batches(steps=9, rows=11)
    for position in range(5):
        data.at(0, position)
    assert list(dict.fromkeys(asked)) == [(step, 9, 8) for step in range(1, 6)]
