"""Files: where entries stand, and the error for a file that cannot be read."""

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minigpt2.data.files import Entry, files_of, has_entry_per_line, read_entries
from minigpt2.errors import UserError

A, B = {"text": "a"}, {"text": "ö"}


def written(folder, name, content):
    """A file with this content, as JSON unless it is text or bytes already."""
    path = folder / name
    text = content if isinstance(content, (bytes, str)) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path):
    """The error that a file raises."""
    with pytest.raises(UserError) as refused:
        read_entries(path)
    assert "\n" not in str(refused.value) and str(path) in str(refused.value)
    return str(refused.value)


def test_entries_of_a_list_are_counted_from_0(tmp_path):
    path = written(tmp_path, "a.json", [A, B])
    assert read_entries(path) == [Entry(A, f"entry 0 of {path}"), Entry(B, f"entry 1 of {path}")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n"])
def test_lines_are_counted_from_1_and_empty_ones_do_not_count(tmp_path, name, end):
    path = written(tmp_path, name, f'{{"text": "a"}}\n\n{{"text": "ö"}}{end}')
    assert read_entries(path) == [Entry(A, f"line 1 of {path}"), Entry(B, f"line 3 of {path}")]


def test_a_line_separator_of_unicode_does_not_end_a_line(tmp_path):
    path = written(tmp_path, "a.jsonl", '{"text": "a\u2028b"}\n{"text": "c\x85d"}')
    assert [entry.value["text"] for entry in read_entries(path)] == ["a\u2028b", "c\x85d"]


def test_one_line_is_enough_where_the_ending_says_lines(tmp_path):
    assert len(read_entries(written(tmp_path, "a.jsonl", A))) == 1


def test_a_list_over_several_lines_is_a_list(tmp_path):
    path = written(tmp_path, "a.json", json.dumps([A, B], indent=2))
    assert len(read_entries(path)) == 2


def test_a_text_file_is_one_entry(tmp_path):
    path = written(tmp_path, "a.txt", "Once.\n[not json]\n")
    assert read_entries(path) == [Entry({"text": "Once.\n[not json]\n"}, str(path))]


def test_a_folder_is_all_its_files_in_order_and_what_else_it_has_is_named(tmp_path):
    names = ["B.JSONL", "a.json", "c.txt", "d.ndjson", "e.Json"]
    for name in names:
        written(tmp_path, name, A)
    for name in ("README.md", "table.csv", ".hidden"):
        written(tmp_path, name, "passed over")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner.json").mkdir()
    files, others = files_of(tmp_path)
    assert [file.name for file in files] == sorted(names)
    assert others == [
        ".hidden",
        "README.md",
        "inner (a folder)",
        "inner.json (a folder)",
        "table.csv",
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL", "a.ndjson", "a.NDJson"])
def test_endings_may_be_in_capitals(tmp_path, name):
    assert read_entries(written(tmp_path, name, A))[0].value == A
    assert read_entries(written(tmp_path, "a.TXT", "once"))[0].value == {"text": "once"}


def test_a_folder_without_data_is_refused(tmp_path):
    written(tmp_path, "README.md", "")
    with pytest.raises(UserError, match=r"has no file that ends in .json, .jsonl, .ndjson, .txt"):
        files_of(tmp_path)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a"])
@pytest.mark.parametrize("content", [b"instruction,output\n", b"PAR1\xff"])
def test_a_file_of_another_kind_is_told_what_a_data_set_is(tmp_path, name, content):
    error = refusal(written(tmp_path, name, content))
    assert " is not " in error and "a data set is .json, .jsonl, .ndjson or .txt" in error


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "there is no file" in refusal(tmp_path / "missing.json")
    assert "a data set is" not in refusal(tmp_path / "missing.csv")


def test_a_data_set_that_cannot_be_read_is_not_told_what_a_data_set_is(tmp_path):
    assert refusal(written(tmp_path, "a.json", "[,]")).endswith("Expecting value, line 1, column 2")


def test_a_file_of_more_than_4_gib_is_refused(tmp_path):
    path = written(tmp_path, "a.json", "")
    os.truncate(path, (4 << 30) + 1)  # it takes no space
    assert "at most 4,294,967,296 are read" in refusal(path)


@pytest.mark.parametrize("text", ['{"a": 1}\n ', '{"a": \n1}', "[\n[1]]", '{"a\n": {}}'])
def test_a_first_line_that_is_no_entry_begins_json_of_many_lines(tmp_path, text):
    assert not has_entry_per_line(text)


@pytest.mark.parametrize("text", ['{"a": 1}\n{"a": 2}', '\n \n{"a": 1}\n{', "{}\nx"])
def test_a_first_line_that_is_an_entry_begins_lines(tmp_path, text):
    assert has_entry_per_line(text)


def test_a_faulty_line_is_named_with_its_file(tmp_path):
    path = written(tmp_path, "a.jsonl", '{"a": 1}\n{')
    assert read_entries(path)[1].fault.startswith(str(path))


def test_text_in_another_encoding_is_told_with_its_byte(tmp_path):
    error = refusal(written(tmp_path, "a.json", '[{"instruction": "ö"}]'.encode("latin-1")))
    assert "is not UTF-8 text" in error and "byte 18" in error


@pytest.mark.parametrize(("text", "line"), [(b"[", 1), (b'[{"a": 1},\n{"b": }]', 2)])
def test_text_that_is_not_json_is_told_with_its_line(tmp_path, text, line):
    error = refusal(written(tmp_path, "a.json", text))
    assert "is not JSON" in error and f"line {line}" in error


@pytest.mark.parametrize("text", ['{"a": 1}\n{"b": }\n', '{"a": 1}\nhello\n'])
def test_a_line_that_is_not_json_is_told(tmp_path, text):
    for name in ("a.jsonl", "a.json"):
        path = written(tmp_path, name, text)
        first, second = read_entries(path)
        assert first == Entry({"a": 1}, f"line 1 of {path}")
        assert "is not JSON" in second.fault and "line 2" in second.fault


def test_deep_nesting_is_refused(tmp_path):
    assert "cannot be read as JSON" in refusal(written(tmp_path, "a.json", "[" * 100_000))


def test_an_object_is_not_a_list_of_entries(tmp_path):
    error = refusal(written(tmp_path, "a.json", A))
    assert "holds an object, not a list of entries; write a JSON list, or JSONL with one" in error
    assert "entry on each line" in error


def test_what_holds_nothing_is_refused(tmp_path):
    path = written(tmp_path, "b.txt", " \n")
    assert read_entries(path)[0].fault == f"{path} is empty: there is nothing to learn from"
    assert "empty list" in refusal(written(tmp_path, "a.json", []))
    for name in ("a.jsonl", "a.json"):
        assert "is empty" in refusal(written(tmp_path, name, "\n\n"))


BYTES = st.binary(max_size=40) | st.text('[]{},:"\\\n 1aen', max_size=40).map(str.encode)


def test_line_ends_of_windows_are_line_ends(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"One.\r\nTwo.\r\n\r\nThree.")
    (entry,) = read_entries(path)
    assert entry.value == {"text": "One.\nTwo.\n\nThree."}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BYTES, st.sampled_from(["a.json", "a.jsonl", "a.txt", "a"]))
def test_whatever_a_file_holds_it_is_entries_or_one_line(tmp_path, content, name):
    path = written(tmp_path, name, content)
    try:
        entries = read_entries(path)
    except UserError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return
    assert entries and all(str(path) in entry.where for entry in entries)
