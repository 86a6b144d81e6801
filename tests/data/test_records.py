"""Records: which are plain texts, and how they are written as entries."""

from minigpt2.data.files import Entry
from minigpt2.data.formats import ALPACA_FORMAT
from minigpt2.data.records import Exchange, Record


def test_a_record_without_an_instruction_is_a_text():
    assert Record("", "", "Once.").is_text
    assert not Record("Add.", "", "3").is_text


def test_an_entry_has_alpacas_fields_and_the_others_that_are_not_empty():
    assert Record("Add.", "", "3").as_entry() == {"instruction": "Add.", "input": "", "output": "3"}
    record = Record("Why?", "", "So.", "Be kind.", (Exchange("Hi.", "Hello!"),), "", "cut")
    assert record.as_entry() == {
        "instruction": "Why?",
        "input": "",
        "output": "So.",
        "system": "Be kind.",
        "history": [["Hi.", "Hello!"]],
        "rejected": "",
        "kind": "cut",
    }


def test_a_record_written_in_alpacas_format_is_read_back():
    for record in (
        Record("Add.", "1 + 2", "3"),
        Record("Why?", "", "So.", "Be kind.", (Exchange("Hi.", "Hello!"), Exchange("How?", "So."))),
    ):
        assert ALPACA_FORMAT.to_record(Entry(record.as_entry(), "here")) == record
