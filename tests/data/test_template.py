"""Template: the exact prompts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2.data.records import Exchange, Record
from minigpt2.data.template import (
    TEMPLATE_FILE,
    TEMPLATES,
    Piece,
    Template,
    parts_of,
    prompt_of,
)

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
    expected = WITH_INPUT if text.strip() else WITHOUT_INPUT
    before, after = expected.split("Add.")
    after = after.replace("1 + 2", text)
    assert prompt_of(Record(instruction, text, output)) == before + instruction + after


@pytest.mark.parametrize("text", ["{", "}", "{}", "{instruction}", "{input}", "{0!r:>{1}}", "%s"])
def test_braces_in_user_text_are_left_alone(text):
    for record in (Record(text, "", "x"), Record(text, text, "x")):
        assert prompt_of(record).count(text) == (2 if record.input else 1)
    assert prompt_of(Record("Add.", text, "x")) == WITH_INPUT.replace("1 + 2", text)


@pytest.mark.parametrize("blank", [" ", "\n", "\t \r\n", "\u00a0", "\u3000"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_an_input_or_a_system_message_of_spaces_alone_is_empty(name, blank):
    template = TEMPLATES[name]
    plain = prompt_of(Record("Add.", "", "3"), template)
    assert prompt_of(Record("Add.", blank, "3", system=blank), template) == plain


def test_an_input_goes_where_the_only_question_of_a_template_has_its_place():
    template = Template("{input}: {instruction}\n")
    assert template.first_prompt("Add.", "1 + 2") == "1 + 2: Add.\n"
    assert template.first_prompt("Add.") == ": Add.\n"


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


def test_an_inputs_pieces_are_named_where_a_template_has_no_place_for_it():
    pieces = TEMPLATES["qa"].later_pieces("Add.", "1 + 2")
    assert pieces == [
        Piece("Question:\n"),
        Piece("Add.", "instruction"),
        Piece("\n"),
        Piece("1 + 2", "input"),
        Piece("\n\nAnswer:\n"),
    ]
    assert TEMPLATES["qa"].later_pieces("Add.", "") == [pieces[0], pieces[1], pieces[4]]
    assert TEMPLATES["qa"].later_prompt("Add.") == "Question:\nAdd.\n\nAnswer:\n"


def test_without_a_system_message_a_prompt_begins_with_the_opening():
    first = Template("{instruction}", opening="Begin. ", system="[{system}] ").first_pieces("Add.")
    assert first == [Piece("Begin. ", "opening"), Piece("Add.", "instruction")]


def test_the_system_message_and_every_input_are_in_the_prompt():
    template = Template("{instruction}|{input}.", system="[{system}] ")
    record = Record("Add.", "1 + 2", "3", "Be kind.")
    assert prompt_of(record, template) == "[Be kind.] Add.|1 + 2."
    later = record._replace(earlier=(Exchange("Hi.", "Hello."),))
    texts = [part.text for part in parts_of(later, template)]
    assert texts == ["[Be kind.] Hi.|.", "Hello.", "Add.|1 + 2.", "3"]


def test_a_saved_template_can_be_read_by_people(tmp_path):
    Template("Frage: {instruction} é ☃\n").save(tmp_path)
    text = (tmp_path / TEMPLATE_FILE).read_bytes().decode("utf-8")
    assert text.startswith('{\n  "question": "Frage: {instruction} é ☃\\n",\n  "')
    assert text.endswith("\n}\n")


def test_a_piece_of_the_template_itself_has_no_name():
    assert Piece("a").field == "" == Piece("a", "").field
