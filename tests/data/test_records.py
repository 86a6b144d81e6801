"""Records: what is read, and what is said of a data set that cannot be used."""

import json

import pytest

from minigpt2.data.records import Record, load_records
from minigpt2.errors import UserError

GOOD = {"instruction": "Add.", "input": "1 + 2", "output": "3"}
EXPECTED = "expected Alpaca: instruction, input"


def saved(folder, content):
    """A file with this content, as JSON unless it is bytes already."""
    path = folder / "asked.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def refusal(path):
    """What is said of a file."""
    with pytest.raises(UserError) as error:
        load_records(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


def test_entries_are_read_in_their_order(tmp_path):
    entries = [GOOD, {"instruction": " Say ö. ", "input": "", "output": "ö\n"}]
    assert load_records(saved(tmp_path, entries)) == [
        Record("Add.", "1 + 2", "3"),
        Record(" Say ö. ", "", "ö\n"),
    ]


def test_input_may_be_absent_and_other_fields_are_passed_over(tmp_path):
    entry = {"instruction": "Go.", "output": "Gone.", "text": 3}
    assert load_records(saved(tmp_path, [entry])) == [Record("Go.", "", "Gone.")]


@pytest.mark.parametrize("field", ["instruction", "output"])
def test_a_field_that_is_missing_is_named_with_its_entry(tmp_path, field):
    entry = {name: value for name, value in GOOD.items() if name != field}
    said = refusal(saved(tmp_path, [GOOD, GOOD, entry, GOOD]))
    assert "entry 2 of" in said and f"no field '{field}'" in said and EXPECTED in said


@pytest.mark.parametrize("value", [3, None, ["3"], {"text": "3"}, True], ids=str)
@pytest.mark.parametrize("field", ["instruction", "input", "output"])
def test_a_field_that_is_not_text_is_named_with_its_entry(tmp_path, field, value):
    said = refusal(saved(tmp_path, [GOOD, {**GOOD, field: value}]))
    assert "entry 1 of" in said and f"field '{field}' is not text" in said and EXPECTED in said


@pytest.mark.parametrize("value", ["", " ", "\n\t"])
@pytest.mark.parametrize("field", ["instruction", "output"])
def test_a_field_that_is_empty_is_named_with_its_entry(tmp_path, field, value):
    said = refusal(saved(tmp_path, [{**GOOD, field: value}]))
    assert "entry 0 of" in said and f"field '{field}' is empty" in said


@pytest.mark.parametrize(("entry", "kind"), [("Add.", "str"), (["Add."], "list"), (None, "None")])
def test_an_entry_that_is_no_object_is_named(tmp_path, entry, kind):
    said = refusal(saved(tmp_path, [GOOD, entry]))
    assert "entry 1 of" in said and kind in said and EXPECTED in said


def test_the_first_entry_that_cannot_be_used_is_named(tmp_path):
    assert "entry 1 of" in refusal(saved(tmp_path, [GOOD, {}, 3]))


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "there is no file" in refusal(tmp_path / "missing.json")


def test_a_folder_is_no_file(tmp_path):
    assert "cannot be read" in refusal(tmp_path)


def test_text_in_another_encoding_is_told_with_its_byte(tmp_path):
    said = refusal(saved(tmp_path, '[{"instruction": "ö"}]'.encode("latin-1")))
    assert "is not UTF-8 text" in said and "byte 18" in said


@pytest.mark.parametrize(("text", "line"), [(b"", 1), (b'[{"a": 1},\n{"b": }]', 2)])
def test_text_that_is_not_json_is_told_with_its_line(tmp_path, text, line):
    said = refusal(saved(tmp_path, text))
    assert "is not JSON" in said and f"line {line}" in said


def test_an_object_is_not_a_list_of_entries(tmp_path):
    said = refusal(saved(tmp_path, GOOD))
    assert "dict" in said and "not a list" in said and EXPECTED in said


def test_an_empty_list_is_refused(tmp_path):
    assert "empty list" in refusal(saved(tmp_path, []))
