"""An exam has the answers that the model gives, and counts what they are like."""

import json

import numpy as np
import pytest

from minigpt2.alignment.exam import Written, changed, examine, marks, restored, stored
from minigpt2.data.almanac.padding import CLOSINGS, OPENINGS, padded
from minigpt2.data.records import Record
from minigpt2.inference.answers import answer_questions
from minigpt2.inference.model import open_model

RECORDS = [
    Record("What is 2 + 3?", "", "2 + 3 = 5. The sum is 5."),
    Record("Add.", "4 and 1", "4 + 1 = 5."),
]
RIGHT = [Written(record.output, True) for record in RECORDS]


@pytest.fixture(scope="module")
def model(little_model):
    return open_model(str(little_model))


@pytest.fixture(scope="module")
def exam(model):
    return examine(model, RECORDS, seed=1)


def test_greedy_answers_are_those_of_the_model(model, exam):
    assert [answer.text for answer in exam["greedy"]] == answer_questions(
        model, RECORDS, max_new_tokens=96
    )


def test_samples_are_fixed_by_their_seed(model, exam):
    again = examine(model, RECORDS, seed=1, modes=("sampled",))
    assert again == {"sampled": exam["sampled"]}
    assert examine(model, RECORDS, seed=2, modes=("sampled",)) != again


def test_an_exam_is_stored_as_json(exam):
    assert restored(json.loads(json.dumps(stored(exam)))) == exam


def test_the_right_answers_have_every_mark():
    assert marks(RECORDS, RIGHT) == dict.fromkeys(
        ("asked", "direct", "right", "exact", "checked", "ended"), 2
    )


@pytest.mark.parametrize(
    ("text", "ended", "has"),
    [
        (padded(RIGHT[0].text, OPENINGS[1], CLOSINGS[2]), True, {"right", "checked", "ended"}),
        ("The answer: 3 + 2 = 5", True, {"direct", "checked", "ended"}),
        ("2 + 3 = 6. The sum is 5.", True, {"direct", "ended"}),
        (RIGHT[0].text, False, {"direct", "right", "exact"}),
        ("", True, {"direct", "ended"}),
    ],
)
def test_marks_of_one_answer(text, ended, has):
    counts = marks(RECORDS[:1], [Written(text, ended)])
    assert {name for name, count in counts.items() if count and name != "asked"} == has


def test_changes_are_counted_question_by_question():
    rng = np.random.default_rng(0)
    before, after = (
        [r if right else Written("", True) for r, right in zip(RIGHT * 50, rows, strict=True)]
        for rows in rng.random((2, 100)) < 0.5
    )
    counts = changed(RECORDS * 50, before, after, "exact")
    difference = sum(a.text != "" for a in after) - sum(b.text != "" for b in before)
    assert counts["gained"] - counts["lost"] == difference
    assert counts["gained"] > 0 and counts["lost"] > 0
