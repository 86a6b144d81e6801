"""Settings: what words and files mean, and the line for those that mean nothing."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from minigpt2 import yaml_files
from minigpt2.cli import COMMANDS, settings_class
from minigpt2.errors import UserError
from minigpt2.settings import Setting, as_file, read_settings, require_all, setting_of


@dataclass(frozen=True, kw_only=True)
class ExampleSettings:
    """Settings of all types that the commands have."""

    data: str
    count: int = 3
    rate: float = 0.5
    flag: bool = False
    name: str = ""
    prompt: str | None = None
    limit: int | None = None
    out: Path | None = None
    kind: Literal["token", "example"] = "token"
    test: list[str] | str | None = None
    layers: list[str] = field(default_factory=lambda: ["a", "b"])
    columns: dict[str, str] | None = None
    weights: list[float] = field(default_factory=lambda: [0.0, 1.0])


HINTS: dict[str, Any] = get_type_hints(ExampleSettings)


def read(folder, content, name="settings.yaml"):
    """The values of a settings file."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return {k: s.value for k, s in read_settings(str(path), "train", HINTS).items()}


def typed(name, words):
    """The value of a setting on the command line."""
    return setting_of(words, "train", name, HINTS[name]).value


def refusal(call, *arguments):
    """The one line with which something is refused."""
    with pytest.raises(UserError) as refused:
        call(*arguments)
    line = str(refused.value)
    assert "\n" not in line and len(line) < 400
    assert not [word for word in ("<class", "typing", "Union", "NoneType", "None") if word in line]
    return line


def test_the_types_here_are_those_of_the_commands():
    used = {str(h) for name in COMMANDS for h in get_type_hints(settings_class(name)).values()}
    plain = {hint for hint in used if "Literal" not in hint}
    assert plain - {str(hint) for hint in HINTS.values()} <= {
        "float | None",
        "list[int] | None",
        str(bool | Path),
        str(Path),
    }


TEXTS = [
    *(
        "null",
        "~",
        "no",
        "true",
        "12",
        "1e3",
        "# Tide",
        "#!/bin/sh",
        "2026-11-26",
        "[1, 2]",
        "{a: b}",
    ),
    *(
        "- a",
        "a: b",
        "&a b",
        "*a",
        "!x",
        "'a'",
        '"a"',
        "|",
        ">",
        "%",
        "@a",
        "`a",
        "",
        " ",
        " a ",
        "a\nb",
    ),
    *("?", "---", "...", "\\n", "0x10", "1_000", "Ω\N{KEY}"),
]


@pytest.mark.parametrize("words", TEXTS)
def test_a_text_on_the_command_line_is_the_text_as_typed(words):
    assert typed("prompt", words) == words
    assert typed("name", words) == words
    if words.strip():
        assert typed("data", words) == words
        assert typed("out", words) == Path(words)


@given(st.text())
def test_any_text_on_the_command_line_is_the_text_as_typed(words):
    assert typed("prompt", words) == words


@pytest.mark.parametrize("words", [t for t in TEXTS if t.strip() and not t.startswith("[")])
def test_a_name_that_may_also_be_a_list_is_the_text_as_typed(words):
    assert typed("test", words) == words


def test_a_list_on_the_command_line():
    assert typed("test", "[a.json,b.json]") == ["a.json", "b.json"]
    assert typed("test", "[/y].json") == "[/y].json"
    assert typed("weights", "[0, 1e-3, 2]") == [0.0, 1e-3, 2.0]
    assert typed("columns", '{"instruction": "ask", output: 12}') == {
        "instruction": "ask",
        "output": "12",
    }


RIGHT = [
    ("count", "4", 4),
    ("count", "+1_000", 1000),
    ("count", str(2**63 - 1), 2**63 - 1),
    ("rate", "1e-4", 1e-4),
    ("rate", "1E5", 1e5),
    ("rate", ".5", 0.5),
    ("rate", "3", 3.0),
    ("flag", "true", True),
    ("flag", "No", False),
    ("limit", "7", 7),
    ("limit", "null", None),
    ("columns", "null", None),
    ("kind", "example", "example"),
]


@pytest.mark.parametrize(("name", "words", "value"), RIGHT)
def test_right_words(tmp_path, name, words, value):
    assert typed(name, words) == value and type(typed(name, words)) is type(value)
    assert read(tmp_path, f"{name}: {words}") == {name: value}


WRONG = [
    *(
        ("count", w, "must be a whole number, not")
        for w in ("x", "1.5", "1e3", "", "nan", "0x10", "[1]", "1:30")
    ),
    *(
        ("rate", w, "must be a number, not")
        for w in ("x", "nan", ".nan", ".inf", "1,5", ".", "e5", "{}", "--")
    ),
    ("flag", "maybe", "must be true or false, not maybe"),
    ("kind", "all", "must be token or example, not all"),
    ("limit", "x", "must be a whole number, not x"),
    ("weights", "[0, x]", "must be a list, such as [1, 2], not [0, x]"),
    ("weights", "3", "must be a list, such as [1, 2], not 3"),
    ("weights", "[.nan]", "must be a list, such as [1, 2], not [.nan]"),
    ("columns", "x", 'must be a mapping, such as {"instruction": "ask"}, not x'),
    ("columns", "{a: [b]}", 'must be a mapping, such as {"instruction": "ask"}, not {a: [b]}'),
    ("columns", "{a: b, a: c}", 'must be a mapping, such as {"instruction": "ask"}, not'),
    ("columns", "{", 'must be a mapping, such as {"instruction": "ask"}, not {'),
    ("columns", "[" * 1000, 'must be a mapping, such as {"instruction": "ask"}, not [['),
    ("count", str(2**63), "is too large: 9223372036854775808"),
    ("count", "9" * 5000, "is too large: 999"),
    ("rate", "1e999", "is too large: 1e999"),
    ("rate", "-" + "9" * 400, "is too large: -999"),
    ("data", "", "is empty: give a file or folder, or leave it out"),
    ("data", " ", "is empty"),
    ("out", "", "is empty: give a folder, or leave it out"),
    ("test", "", "is empty: give a file or list"),
    ("test", "[a.json, '']", "is empty"),
    ("test", "[]", "is empty"),
]


@pytest.mark.parametrize(("name", "words", "line"), WRONG)
def test_wrong_words_on_the_command_line(name, words, line):
    assert f"{name} {line}" in refusal(typed, name, words)


FILES = [
    ("name: 3\ncounts: 4", "line 2: train has no setting 'counts'; did you mean 'count'?"),
    ("xyz: 3", "line 1: train has no setting 'xyz'"),
    ("count: 3\ncommand: dpo", "line 2: these are the settings of dpo, not of train"),
    ("command: [train]", "line 1: train has no setting 'command'"),
    ("count: a", "line 1: count must be a whole number, not a"),
    ("\n\ncount: [1]", "line 3: count must be a whole number, not a list"),
    ("count: {a: 1}", "count must be a whole number, not a mapping"),
    ("flag: perhaps", "flag must be true or false, not perhaps"),
    ("kind: all", "kind must be token or example, not all"),
    ("count:", "line 1: count has no value: give one, or leave it out"),
    ("count: 1\nrate: ~", "line 2: rate has no value"),
    ("name: null", "line 1: name has no value"),
    ("count: 1\nrate: 2\ncount: 1", "line 3: 'count' is in line 1, too"),
    ("data: ''", "line 1: data is empty"),
    ('data: "a\\0b"', "line 1: data has a character that no name can have"),
    ('data: "a\\ud800"', "line 1: data must be a file or folder, not"),
    ("count: " + "9" * 5000, "line 1: count is too large"),
    ("x" * 100_000 + ": 1", "line 1, is not YAML: "),
    ("? [a, b]\n: 1", "line 1: a name must be a text, not a list"),
    ("", "settings.yaml is empty: it must hold settings, such as batch_size: 4"),
    ("# only a remark", "is empty"),
    ("just words", "is the text 'just words': it must hold settings, such as batch_size: 4"),
    ("- count: 1", "is a list: it must hold settings"),
    ("count: [a", "is not YAML: "),
    ("count: 1\n\t rate: 2", "line 2, is not YAML: "),
    ("count: 1\n---\ncount: 2", "is not YAML: "),
    ("count: *a", "line 1, is not YAML: "),
    ("count: \x07", "is not YAML: "),
    ("columns: " + "[" * 1000, "nested too deeply"),
    (b"\x80\x81\x00\xff" * 100, "is not UTF-8 text"),
    ("x" * 2_000_000, "has 2,000,000 bytes; at most 1,048,576 are read"),
]


@pytest.mark.parametrize(("content", "line"), FILES)
def test_an_error_in_a_settings_file_names_file_and_line(tmp_path, content, line):
    error = refusal(read, tmp_path, content)
    assert line in error and error.startswith(f"{tmp_path}/settings.yaml")


def test_aliases_that_would_grow_without_end_are_one_line(tmp_path):
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 60)]
    content = "\n".join(["columns: &a0 {a: b}", *levels])
    assert "train has no setting 'a1'" in refusal(read, tmp_path, content)
    nested = "{" + ", ".join(f"a{i}: &a{i} {{b: *a{i - 1}}}" for i in range(1, 60)) + "}"
    assert "columns must be a mapping" in refusal(read, tmp_path, f"name: &a0 x\ncolumns: {nested}")


def test_a_setting_that_a_command_does_not_have_is_refused_with_the_reason(tmp_path):
    (path := tmp_path / "file.yaml").write_text("count: 3\ntop-k: 4\n")
    with pytest.raises(UserError, match=r"file.yaml, line 2: answers are drawn from all tokens$"):
        read_settings(str(path), "ppo", HINTS, {"top_k": "answers are drawn from all tokens"})


def test_more_values_than_any_settings_file_has_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(yaml_files, "MOST_NODES", 30)
    many = "{" + ", ".join(f"a{i}: b" for i in range(20)) + "}"
    assert "it has more than 30 values" in refusal(read, tmp_path, f"columns: {many}")


def test_names_may_be_written_as_on_the_command_line(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("batch-size: 4\nmicro_batch: 2")
    values = read_settings(str(path), "train", {"batch_size": int, "micro_batch": int})
    assert {name: s.value for name, s in values.items()} == {"batch_size": 4, "micro_batch": 2}
    path.write_text("batch-size: 4\nbatch_size: 4")
    assert "batch_size is in the file twice" in refusal(
        read_settings, str(path), "train", {"batch_size": int}
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_settings_file_in_the_encodings_that_editors_write(tmp_path, encoding):
    assert read(tmp_path, "count: 4\r\nname: größe\r\n".encode(encoding)) == {
        "count": 4,
        "name": "größe",
    }


def test_a_text_in_a_settings_file_is_the_text_as_written(tmp_path):
    content = "prompt: no\nname: 12\ndata: 2020-13-45\nout: 0o7\ntest: [1, no]"
    assert read(tmp_path, content) == {
        "prompt": "no",
        "name": "12",
        "data": "2020-13-45",
        "out": Path("0o7"),
        "test": ["1", "no"],
    }
    assert read(tmp_path, "prompt: null\nname: 'null'") == {"prompt": None, "name": "null"}


def test_settings_may_be_json(tmp_path):
    values = {"count": 4, "rate": 1e-5, "flag": True, "prompt": None, "columns": {"a": "\t🔑"}}
    for indent in (None, 1, "\t"):
        assert read(tmp_path, json.dumps(values, indent=indent), "settings.json") == values


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{"count": 4,\n "counts": 5}', "line 2: train has no setting 'counts'; did you mean"),
        ('{"name": "count", "columns": {"count": "x"},\n\n"count": "x"}', "line 3: count must be"),
        ('{"count": [1]}', "line 1: count must be a whole number, not a list"),
        ('{"count": null}', "line 1: count has no value"),
        ('{"count": NaN}', "line 1: count must be a whole number, not NaN"),
        ('{"rate": 1e999}', "line 1: rate is too large: 1e999"),
        ('{"flag": "yes please"}', "line 1: flag must be true or false"),
        ('{"count": 1, "count": 1}', "has the field 'count' twice"),
        ('{"columns": ' + "[" * 40_000 + "]" * 40_000 + "}", "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "is a list: it must hold settings"),
        ('"a"', "is a text: it must hold settings"),
        (" ", "is empty: it must hold settings"),
        ('{"count": 1', "is not JSON"),
        ("count: 1", "is not JSON"),
    ],
)
def test_an_error_in_a_json_file_names_file_and_line(tmp_path, content, line):
    with pytest.raises(UserError) as refused:
        read(tmp_path, content, "settings.json")
    assert line in str(refused.value) and str(refused.value).startswith(f"{tmp_path}/settings.json")


LISTS = {"weights": [0.0, 1.0], "layers": ["a", "b"]}
VALUES = {
    "count": st.integers(-(2**63) + 1, 2**63 - 1),
    "rate": st.floats(allow_nan=False, allow_infinity=False),
    "flag": st.booleans(),
    "name": st.text(),
    "prompt": st.none() | st.text(),
    "limit": st.none() | st.integers(0, 9),
    "kind": st.sampled_from(["token", "example"]),
    "weights": st.lists(st.floats(allow_nan=False, allow_infinity=False)),
    "layers": st.lists(st.text()),
    "columns": st.none() | st.dictionaries(st.text(), st.text()),
}


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries({}, optional=VALUES))
@example({"name": "a\x85b\u2028", "prompt": "größe 🔑"})
def test_printed_settings_are_read_back_as_they_were(tmp_path, values):
    text = as_file(ExampleSettings, {name: Setting(value) for name, value in values.items()})
    assert read(tmp_path, text) == {
        **{f.name: f.default for f in fields(ExampleSettings) if f.name not in ("data", *LISTS)},
        **LISTS,
        **values,
    }
    for indent in (None, 2):
        assert read(tmp_path, json.dumps(values, indent=indent), "settings.json") == values


NAMES = st.sampled_from(sorted(HINTS))
SIGNS = "[]{},:'\"\\\n -?&*!|>%@#~.1e_abnul"
ANY = (
    st.binary(max_size=40)
    | st.text(SIGNS, max_size=40).map(str.encode)
    | st.builds("{}: {}".format, NAMES, st.text(SIGNS, max_size=20)).map(str.encode)
    | st.builds('{{"{}": {}}}'.format, NAMES, st.text(SIGNS, max_size=20)).map(str.encode)
)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANY, st.sampled_from(["settings.yaml", "settings.json"]))
def test_whatever_a_file_holds_it_is_settings_or_one_line(tmp_path, content, name):
    try:
        read(tmp_path, content, name)
    except UserError as error:
        assert str(error).startswith(f"{tmp_path}/{name}") and "\n" not in str(error)


def test_a_setting_without_a_default_must_be_there():
    assert refusal(require_all, "train", ExampleSettings, {}) == "train needs data (file or folder)"
    require_all("train", ExampleSettings, {"data": Setting("a.json")})
