"""Template: the exact prompts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2.data.records import Record
from minigpt2.data.template import TEMPLATES, open_template, prompt_of, stored_template
from minigpt2.errors import UserError

WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nAdd.\n\n### Input:\n1 + 2\n\n### Response:\n"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\nAdd.\n\n### Response:\n"
)


def test_a_prompt_with_input():
    assert prompt_of(Record("Add.", "1 + 2", "3")) == WITH_INPUT


def test_a_prompt_without_input():
    assert prompt_of(Record("Add.", "", "3")) == WITHOUT_INPUT


@given(st.text(min_size=1), st.text(), st.text())
def test_user_text_stands_in_the_prompt_as_it_is(instruction, text, output):
    expected = WITH_INPUT if text else WITHOUT_INPUT
    before, after = expected.split("Add.")
    after = after.replace("1 + 2", text)
    assert prompt_of(Record(instruction, text, output)) == before + instruction + after


@pytest.mark.parametrize("text", ["{", "}", "{}", "{instruction}", "{input}", "{0!r:>{1}}", "%s"])
def test_braces_in_user_text_are_left_alone(text):
    for record in (Record(text, "", "x"), Record(text, text, "x")):
        assert prompt_of(record).count(text) == (2 if record.input else 1)
    assert prompt_of(Record("Add.", text, "x")) == WITH_INPUT.replace("1 + 2", text)


def test_a_prompt_does_not_depend_on_the_answer_and_ends_with_a_line_break():
    for text in ("", "1 + 2"):
        first, second = (prompt_of(Record("Add.", text, answer)) for answer in ("3", "4"))
        assert first == second and first.endswith("### Response:\n")


def test_the_inputs_place_is_below_the_instruction_where_a_template_has_none():
    assert TEMPLATES["qa"].later_prompt("Add.", "1 + 2") == "Question:\nAdd.\n1 + 2\n\nAnswer:\n"
    assert TEMPLATES["raw"].later_prompt("Add.", "1 + 2") == "Add.\n1 + 2"


@pytest.mark.parametrize("name", ["alpaca", "qa", "chat"])
def test_prompts_end_with_a_line_break_and_later_ones_have_no_opening(name):
    template = TEMPLATES[name]
    for text in ("", "1 + 2"):
        later, first = template.later_prompt("Add.", text), template.first_prompt("Add.", text)
        assert first == (template.opening_with_input if text else template.opening) + later
        assert first.endswith("\n")
        system = template.first_prompt("Add.", text, "{instruction}")
        assert system.endswith(later) and "{instruction}" in system and "Below" not in system


def test_a_template_from_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "question: |\n  Q {instruction}\nquestion_with_input: '{input}? {instruction}'\n"
    )
    template = open_template(str(path))
    assert (
        template.first_prompt("Add.") == "Q Add.\n"
        and template.first_prompt("Add.", "1") == "1? Add."
    )
    template.save(tmp_path)
    assert stored_template(tmp_path) == template
    assert stored_template(tmp_path / "elsewhere") is None
    assert open_template(str(tmp_path / "template.json")) == template


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[", "is not YAML"),
        ("[" * 3000, "is not YAML"),
        ("question: 2020-13-45", "is not YAML: month must be in 1..12"),
        ("- a", "has no text 'question'"),
        ("opening: a", "has no text 'question'"),
        ("question: 3", "has no text 'question'"),
        ("question: ''", "'question' has no"),
        ("question: a", "'question' has no place for {instruction}"),
        (
            "question: '{instruction}'\nquestion_with_input: '{input}'",
            "'question_with_input' has",
        ),
        ("question: '{instruction}'\nanswer: a", "'answer' is none of a template's question"),
        ("question: '{instruction}'\nopening: 3", "'opening' is not text"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(tmp_path, text, error):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        open_template(str(path))
    assert error in str(refused.value) and str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "[" * 100_000])
def test_a_stored_template_that_is_damaged_is_refused(tmp_path, text):
    (tmp_path / "template.json").write_text(text)
    with pytest.raises(UserError, match=r"template.json (is not|cannot be read as) JSON"):
        stored_template(tmp_path)


def test_an_unknown_template_is_refused():
    with pytest.raises(UserError, match=r"'alpac' is none of alpaca, qa, chat, raw, nor a \.yaml"):
        open_template("alpac")
    with pytest.raises(UserError, match="there is no file"):
        open_template("missing.yaml")
