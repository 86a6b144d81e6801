"""Reading: what is read, what is refused before it is read, and the faults of JSON."""

import errno
import json
import os
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2.errors import UserError
from minigpt2.reading import json_kind, next_chunk, parse_json, quoted, read_bytes, read_text

PLACE = "a.json"


def refusal(read, *arguments):
    """The one line with which something is refused."""
    with pytest.raises(UserError) as refused:
        read(*arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_names_the_encoding_and_is_no_text(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes("größe 🔑\n".encode(encoding))
    assert read_text(path) == "größe 🔑\n"


@pytest.mark.parametrize(
    "raw", [b"ab\xff", "ö".encode("latin-1"), b"\xff\xfea", b"\xff\xfe\x00\xd8"]
)
def test_what_is_not_text_is_named_with_its_byte(tmp_path, raw):
    path = tmp_path / "a.txt"
    path.write_bytes(raw)
    assert " text: " in refusal(read_text, path) and ", byte " in refusal(read_text, path)


def test_a_file_is_read_up_to_its_bound(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 2_000_000)
    assert len(read_bytes(path, 2_000_000)) == 2_000_000
    assert "has 2,000,000 bytes; at most 1,499,999 are read" in refusal(
        read_bytes, path, 1_500_000 - 1
    )


def test_the_size_is_checked_before_anything_is_read(tmp_path):
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no place on the disk
    assert "has 1,099,511,627,776 bytes; at most 1,048,576 are" in refusal(read_text, path)


def test_a_name_that_cannot_be_read_is_one_sentence(tmp_path):
    assert "there is no file" in refusal(read_text, tmp_path / "missing")
    assert "is a folder, not a file" in refusal(read_text, tmp_path)
    assert "cannot be read: " in refusal(read_text, tmp_path / "a\0b")
    assert "cannot be read: " in refusal(read_text, tmp_path / ("x" * 1000))
    (tmp_path / "a").write_text("")
    assert "cannot be read: " in refusal(read_text, tmp_path / "a" / "b")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="these devices are Linux's")
@pytest.mark.parametrize("name", ["zero", "urandom", "null", "full"])
def test_a_device_is_refused(name):
    assert f"/dev/{name} is a device, not a file" in refusal(read_bytes, f"/dev/{name}", 100)


@pytest.fixture
def pipe():
    """A pipe that holds 300,000 bytes, and the name that the shell gives to `<(command)`."""
    reader, writer = os.pipe()

    def write():
        with open(writer, "wb", buffering=0) as end:
            for _ in range(3):
                end.write(b"x" * 100_000)

    thread = threading.Thread(target=write)
    thread.start()
    yield f"/dev/fd/{reader}"
    while os.read(reader, 100_000):
        pass
    thread.join()
    os.close(reader)


def test_a_pipe_is_read_to_its_end(pipe):
    assert read_bytes(pipe, 300_000) == b"x" * 300_000


def test_a_pipe_is_read_up_to_the_bound(pipe):
    assert "has more than the 1,000 bytes that are read" in refusal(read_bytes, pipe, 1000)


def test_a_pipe_is_waited_for(tmp_path):
    """A pipe whose program writes late is read when it has written."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    thread = threading.Timer(0.02, os.write, [writer, b"late"])
    thread.start()
    assert next_chunk(reader) == b"late"
    thread.join()
    os.close(reader)
    os.close(writer)


def test_a_disk_that_fails_is_told(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"text")

    def fail(file, size):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "read", fail)
    message = refusal(read_bytes, tmp_path / "a.txt", 100)
    assert message == f"{tmp_path}/a.txt cannot be read: {os.strerror(errno.EIO)}"


def test_a_pipe_that_no_program_writes_to_is_refused_at_once(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert "is a pipe that no program writes to" in refusal(read_bytes, path, 100)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_json_is_read_as_it_was_written(value):
    assert parse_json(json.dumps(value), PLACE) == value


@given(st.text() | st.text('[]{},:"\\019.eE-+ntru', min_size=1))
def test_any_other_text_is_one_sentence(text):
    try:
        parse_json(text, PLACE)
    except UserError as error:
        assert PLACE in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a.json is not JSON: it is empty"),
        ("[1 2]", "a.json is not JSON: Expecting ',' delimiter, line 1, column 4"),
        ('[{"a": 1},\n{"b": }]', "is not JSON: Expecting value, line 2, column 7"),
        ("[" * 100_000, "a.json cannot be read as JSON: it is nested too deeply"),
        ('{"a":' * 100_000, "it is nested too deeply"),
        ("9" * 5000, "a.json cannot be read as JSON: a number has too many digits"),
        ('{"a": 1, "b": 2, "a": 1}', "a.json has the field 'a' twice"),
        ('[{}, {"b": [{"a": 1, "a": 2}]}, {}]', "entry 1 of a.json has the field 'a' twice"),
        ('[{"a": {"b": 1, "b": 2}, "a": 3}]', "entry 0 of a.json has the field 'a' twice"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(text, words):
    assert words in refusal(parse_json, text, PLACE)


def test_a_line_is_named_by_its_number():
    assert "line 7" in refusal(parse_json, "{", PLACE, 7)
    assert "line 7 of a.json has the field 'a' twice" in refusal(
        parse_json, '{"a":1,"a":2}', PLACE, 7
    )


def test_values_are_called_by_the_words_of_json():
    values = ({}, [], "a", 1, 1.5, True, None)
    kinds = ["an object", "a list", "a text", "a number", "a number", "true or false", "null"]
    assert [json_kind(value) for value in values] == kinds
    assert len(quoted("x" * 1_000_000)) < 70 and quoted(None) == "null"
