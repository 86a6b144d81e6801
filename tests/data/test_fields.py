"""Fields: each reader, on an entry of its own, reads every field that it names and no other."""

import pytest

from minigpt2.data import fields
from minigpt2.data.files import Entry
from minigpt2.data.records import Exchange, Record
from minigpt2.errors import UserError


def entry(**values):
    """An entry of a file."""
    return Entry(values, "entry 3 of a.json")


def test_a_single_turn_has_a_question_an_answer_and_perhaps_an_input():
    whole = entry(q="Add.", a="3", more="1 + 2", XXXX="passed over")
    assert fields.single_turn("q", "a", "more")(whole) == Record("Add.", "1 + 2", "3")
    assert fields.single_turn("q", "a")(whole) == Record("Add.", "", "3")
    assert fields.single_turn("q", "a", "more")(entry(q="Why?", a="So.")) == Record(
        "Why?", "", "So."
    )


@pytest.mark.parametrize("missing", ["q", "a"])
def test_a_single_turn_needs_its_question_and_its_answer(missing):
    values = {"q": "Add.", "a": "3"} | {missing: None}
    with pytest.raises(UserError, match=rf"^entry 3 of a\.json: field '{missing}' is"):
        fields.single_turn("q", "a")(entry(**values))


def test_alpaca_has_an_instruction_an_input_a_system_text_and_a_history():
    read = fields.alpaca("response")
    assert read(entry(instruction="Add.", response="3")) == Record("Add.", "", "3")
    history = [["Hi.", "Hello!"]]
    whole = entry(instruction="Add.", input="1 + 2", response="3", system="Sums.", history=history)
    earlier = (Exchange("Hi.", "Hello!"),)
    assert read(whole) == Record("Add.", "1 + 2", "3", system="Sums.", earlier=earlier)


def test_a_pair_has_a_rejected_answer_and_perhaps_a_kind():
    read = fields.with_rejected(fields.single_turn("q", "a"))
    record = Record("Add.", "", "3")
    assert read(entry(q="Add.", a="3", rejected="")) == record._replace(rejected="", kind="")
    of_kind = entry(q="Add.", a="3", rejected="4", kind="wrong")
    assert read(of_kind) == record._replace(rejected="4", kind="wrong")


def test_a_conversation_names_its_fields():
    read = fields.conversation("talk", "who", "says")
    turns = [{"who": "user", "says": "Hi."}, {"who": "assistant", "says": "Hello!"}]
    assert read(entry(talk=turns)) == Record("Hi.", "", "Hello!")
    with pytest.raises(UserError, match=r"^entry 3 of a\.json: field 'talk'"):
        read(entry(talk=turns[:1]))
