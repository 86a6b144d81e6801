"""Statistics: counts spelled out on small data, and the tables that show them."""

import json
import re

import numpy as np
import pytest

from minigpt2.commands.stats import StatsSettings, histogram, stats
from minigpt2.data.records import Exchange, Record
from minigpt2.data.statistics import (
    Summary,
    count_repeated,
    count_rows,
    lengths_of,
    near_duplicates,
    normalised_question,
)
from minigpt2.errors import UserError
from tests.data.small import example_of

EXAMPLES = [
    example_of(range(10), [1, 2]),
    example_of(range(9), [1]),
    example_of(range(1), [1, 2, 3, 4, 5]),
    example_of([*range(8), 20], [1, 2]),
]


def test_lengths_and_their_summary():
    lengths = lengths_of(EXAMPLES)
    assert lengths.prompt.tolist() == [10, 9, 1, 9] and lengths.answer.tolist() == [2, 1, 5, 2]
    assert lengths.both.tolist() == [12, 10, 6, 11]
    assert Summary.of(lengths.answer) == (10, 2.5, [1, 1, 2, 2, 5, 5, 5])


def test_rows_in_three_ways():
    rows = count_rows([EXAMPLES[::-1]])
    assert rows.padded == 4 * 11 and rows.packed == 11 + 9 + 5 + 10
    # 0 … 7 stand once for three examples; 8 is before two of them and too short to share
    assert rows.forest == 8 + (3 + 1 + 2) + 5
    alone = count_rows([[example] for example in EXAMPLES])
    assert alone.padded == alone.packed == alone.forest == 35


def test_a_question_is_all_before_the_answer_without_capitals_and_spaces():
    record = Record("Why  not?", "You ", "So.", "Be kind.", (Exchange("Hi.", "Hello!"),))
    assert normalised_question(record) == "be kind. hi. hello! why not? you"
    assert normalised_question(Record("", "", "A  text.")) == "a text."


def test_repetitions_and_near_duplicates():
    known = ["name the capital of france.", "add 1 and 2.", "who wrote hamlet?"]
    questions = ["name the capital of frances.", "sing.", "add 1 and 2.", "who wrote macbeth?"]
    assert count_repeated([*known, *questions]) == (1, 1)
    assert count_repeated(["one"] * 4 + ["two"] * 2 + ["three"]) == (2, 4)
    counts = []
    pairs = near_duplicates(questions, known, counts.append)
    assert [(pair.question, pair.candidate) for pair in pairs] == [(0, 0), (2, 1)]
    assert pairs[0].similarity == pytest.approx(100 * (1 - 1 / 55)) and pairs[1].similarity == 100
    assert sum(counts) == 4
    nearly, not_nearly = ("a" * 9 + "b", "a" * 10), ("a" * 8 + "b", "a" * 9)  # 90 and 88.9 per cent
    assert near_duplicates([nearly[0]], [nearly[1]]) == [(0, 0, 90.0)]
    assert near_duplicates([not_nearly[0]], [not_nearly[1]]) == []
    many = [f"{n} times {n * n} is what?" * 3 for n in range(150)]
    assert [pair[:2] for pair in near_duplicates(many[::-1], many)][5:8] == [
        (5, 144),
        (6, 143),
        (7, 142),
    ]


@pytest.mark.parametrize("counts", [[3] * 5, [1, 2], [0, 1, 1000], list(range(500))], ids=str)
def test_every_example_is_in_one_bin(counts):
    table = histogram("answer", np.array(counts))
    cells = list(table.columns[1].cells)
    assert sum(int(cell.replace(",", "")) for cell in cells) == len(counts)


@pytest.fixture
def data(tmp_path):
    """Ten questions, the last of which repeats the first."""
    questions = [f"Count slowly from one to the number {n}." for n in range(9)]
    entries = [
        {"question": q, "answer": "1 " * n} for n, q in enumerate([*questions, questions[0]], 1)
    ]
    path = tmp_path / "data.json"
    path.write_text(json.dumps(entries))
    return str(path)


def test_the_command_prints_all_of_it(data, little_model, tmp_path, capsys):
    figure = tmp_path / "lengths.png"
    settings = StatsSettings(data=data, model=str(little_model), contexts=[16, 20], figure=figure)
    stats(settings)
    out = capsys.readouterr().out
    assert "10 examples, question/answer" in out and figure.read_bytes().startswith(b"\x89PNG")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()}
    tokens = sum(2 * n + 1 for n in range(1, 11))  # "1" and " ", n times, and end-of-text
    assert rows["answer"][0] == str(tokens)
    assert {"16", "20", "96"} <= rows.keys() and rows["96"] == ["0"] * 6
    assert "1 question is there more than once: without the repetitions 9 of 10 examples" in out
    assert "of 1 validation question (seed 0)" in out
    assert rows["padded"][-1] == "100%" and int(rows["the"][-1].rstrip("%")) < 100
    with pytest.raises(UserError, match="exists already"):
        stats(settings)


def test_without_validation_nothing_is_compared(data, little_model, capsys):
    stats(StatsSettings(data=data, model=str(little_model), validation=0.0))
    out = capsys.readouterr().out
    assert "1 question is there more than once" in out and "validation question" not in out


def test_where_all_examples_are_dropped_no_rows_are_counted(data, little_model, capsys):
    settings = StatsSettings(data=data, model=str(little_model), context=9, truncate="drop")
    stats(settings)
    out = capsys.readouterr().out
    assert "0 examples for training, 0 for validation; 0 prompt tokens, 0 answer tokens" in out
    assert "an epoch has 0 steps" in out and "Rows computed" not in out


def test_it_is_said_which_texts_spell_end_of_text_and_lose_their_question(
    little_model, tmp_path, capsys
):
    entries = [
        {"question": "Why? " * 30, "answer": answer} for answer in ("So.<|endoftext|>", "So.")
    ]
    (tmp_path / "data.json").write_text(json.dumps(entries))
    settings = {"data": str(tmp_path / "data.json"), "model": str(little_model)}
    stats(StatsSettings(**settings))
    out = capsys.readouterr().out
    assert "warning: 1 text spells <|endoftext|>: there it is ordinary text" in out
    assert "no question left" not in out
    stats(StatsSettings(**settings, context=4))
    assert "warning: 2 examples have no question left: use a longer" in capsys.readouterr().out


def test_contexts_beyond_the_model_s_are_counted_only_when_they_are_listed(
    data, little_model, capsys
):
    def contexts_shown(**settings):
        stats(StatsSettings(data=data, model=str(little_model), **settings))
        table = capsys.readouterr().out.split("Examples that lose tokens")[1].split("\n\n")[0]
        return re.findall(r"^ (\d+) ", table, re.MULTILINE)

    assert contexts_shown() == ["64", "96"]
    assert contexts_shown(contexts=[512]) == ["96", "512"]


def test_settings_that_make_no_sense_are_refused(data):
    for wrong in ({"contexts": [0]}, {"batch_size": 0}, {"validation": 1.0}, {"context": 0}):
        with pytest.raises(UserError):
            StatsSettings(data=data, **wrong)
