"""Formats: what becomes of an entry of each, spelled out, and what is refused."""

import json

import pytest

from minigpt2.data.formats import ALL_FORMATS, ALPACA_FORMAT, FORMATS, PREFERENCE_FORMATS
from minigpt2.data.loading import load_data
from minigpt2.data.records import Exchange, Record
from minigpt2.data.template import parts_of
from minigpt2.errors import UserError
from tests.data.entries import (
    ENTRIES,
    MESSAGES,
    TALK,
    load_records,
    message,
    refusal,
    saved,
)

KNOWN = {data_format.name: data_format for data_format in FORMATS}


def test_every_format_has_an_entry_here():
    assert {data_format.name for data_format in FORMATS} == set(ENTRIES)


def test_the_table_of_formats():
    assert [(str(one), one.template, one.turn) for one in FORMATS] == [
        (
            "Alpaca pair: instruction, chosen, rejected (optionally input, system, history, kind)",
            "alpaca",
            (),
        ),
        (
            "message pair: prompt, chosen, rejected (optionally kind)",
            "chat",
            ("role", "content", "weight"),
        ),
        ("pair: prompt, chosen, rejected (optionally kind)", "alpaca", ()),
        ("question pair: question, chosen, rejected (optionally kind)", "qa", ()),
        (
            "dialogue pair: chosen, rejected (optionally kind)",
            "chat",
            ("role", "content", "weight"),
        ),
        ("messages: messages", "chat", ("role", "content", "weight")),
        ("ShareGPT: conversations", "chat", ("from", "value", "weight")),
        ("Alpaca: instruction, output (optionally input, system, history)", "alpaca", ()),
        ("Dolly: instruction, response (optionally context)", "alpaca", ()),
        ("prompt/completion: prompt, completion", "raw", ()),
        ("question/answer: question, answer", "qa", ()),
        ("text: text", "raw", ()),
    ]
    assert ALPACA_FORMAT.name == "Alpaca"
    names = [text.partition(":")[0] for text in ALL_FORMATS.split("; ")]
    pairs = [one.name for one in PREFERENCE_FORMATS]
    assert pairs == ["Alpaca pair", "message pair", "pair", "question pair", "dialogue pair"]
    assert names == [one.name for one in FORMATS if one.name not in pairs] + pairs


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_of_each_format_spelled_out(tmp_path, name):
    entry, record = ENTRIES[name]
    records, data_format, *_ = load_data(saved(tmp_path, [entry]))
    assert records == [record] and data_format.name == name


@pytest.mark.parametrize("name", ["Alpaca", "Dolly", "Alpaca pair"])
def test_an_input_may_be_absent_empty_or_null(tmp_path, name):
    entry, record = ENTRIES[name]
    field = {"Dolly": "context"}.get(name, "input")
    without = {k: v for k, v in entry.items() if k != field}
    expected = [record._replace(input="")] * 3
    entries = [without, {**without, field: ""}, {**without, field: None}]
    assert load_records(saved(tmp_path, entries)) == expected


@pytest.mark.parametrize("name", ["Alpaca", "Alpaca pair"])
def test_history_and_system_are_in_the_prompt(tmp_path, name):
    entry, record = ENTRIES[name]
    earlier = [["Hi.", "Hello!"], ["Why?", "So."]]
    records = load_records(saved(tmp_path, [{**entry, "system": "Be kind.", "history": earlier}]))
    exchanges = (Exchange("Hi.", "Hello!"), Exchange("Why?", "So."))
    assert records == [record._replace(system="Be kind.", earlier=exchanges)]
    (before, *_, last) = parts_of(records[0])
    assert "Be kind." in before.text and "Hi." in before.text and last.text == record.output
    for nothing in (None, []):
        assert load_records(saved(tmp_path, [{**entry, "history": nothing}])) == [record]


@pytest.mark.parametrize(
    ("history", "words"),
    [
        ("Hi.", "is not a list of earlier questions and answers"),
        ({"a": 1}, "is not a list of earlier questions and answers"),
        (3, "is not a list of earlier questions and answers"),
        (["Hi."], "exchange 0, is not a list of a question and its answer"),
        ([["Hi.", "Hello!"], ["Why?"]], "exchange 1, is not a list of a question and its answer"),
        ([["Hi.", None]], "exchange 0, is not text, but null"),
        ([["Hi.", ""]], "exchange 0, is empty"),
    ],
)
def test_a_history_that_cannot_be_used_is_named(tmp_path, history, words):
    error = refusal(tmp_path, [{**ENTRIES["Alpaca"][0], "history": history}])
    assert error.endswith(f"field 'history'{'' if words.startswith('is') else ','} {words}")


def test_a_pair_may_hold_messages(tmp_path):
    other = [TALK[0], message("assistant", "Go away!")]
    entry = {"chosen": TALK, "rejected": other}
    assert load_records(saved(tmp_path, [entry])) == [
        Record("Hi.", "", "Hello!", rejected="Go away!")
    ]


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (TALK[:1], " ends with the user's turn"),
        ("\n\nHuman: Hi.", " ends with the user's turn"),
        (["Hi."], ": field 'chosen', turn 0, is not an object"),
        ("Hi.", ": field 'chosen' does not begin with 'Human:'"),
        (3, ": field 'chosen' is not text, but a number"),
    ],
)
def test_a_dialogue_that_cannot_be_used_is_named(tmp_path, chosen, words):
    error = refusal(tmp_path, [{"chosen": chosen, "rejected": TALK}])
    assert error.startswith(f"entry 0 of {tmp_path / 'data.json'}{words}")


def test_a_pair_of_dialogues_may_repeat_their_question_as_the_prompt(tmp_path):
    other = [TALK[0], message("assistant", "Go away!")]
    entry = {"prompt": "Hi.", "chosen": TALK, "rejected": other}
    record = Record("Hi.", "", "Hello!", rejected="Go away!")
    assert load_records(saved(tmp_path, [entry])) == [record]
    error = refusal(tmp_path, [{**entry, "prompt": "Ho."}])
    assert "field 'prompt' is not a question of 'chosen'" in error


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": []}, "field 'prompt' is not a list of turns, or is empty"),
        ({"prompt": TALK}, "field 'prompt', turn 2, is the assistant's, not the user's"),
        ({"prompt": 3}, "field 'prompt' is not a list of turns, or is empty"),
        ({"chosen": TALK}, "field 'chosen' is not one message of the assistant"),
        ({"rejected": TALK[:1]}, "field 'rejected' is not one message of the assistant"),
        ({"rejected": "No."}, "field 'rejected' is not a list of turns"),
        ({"kind": 3}, "field 'kind' is not text, but a number"),
    ],
)
def test_a_pair_of_messages_that_cannot_be_used_is_named(tmp_path, change, words):
    error = refusal(tmp_path, [{**ENTRIES["message pair"][0], **change}])
    assert f"entry 0 of {tmp_path / 'data.json'}: {words}" in error


def test_a_rejected_answer_may_be_empty_but_not_absent_or_null(tmp_path):
    entry, record = ENTRIES["pair"]
    records = load_records(saved(tmp_path, [{**entry, "rejected": "", "kind": "cut"}]))
    assert records == [record._replace(rejected="", kind="cut")]
    error = refusal(tmp_path, [{**entry, "rejected": None}])
    assert "field 'rejected' is not text, but null" in error


def test_text_is_kept_as_it_is(tmp_path):
    entry = {"instruction": " Say ö. ", "input": "", "output": "ö\n"}
    assert load_records(saved(tmp_path, [entry])) == [Record(" Say ö. ", "", "ö\n")]


def test_columns_give_fields_other_names(tmp_path):
    entry = {"ask": "Who?", "reply": "I.", "output": "passed over"}
    path = saved(tmp_path, [entry])
    columns = {"instruction": "ask", "output": "reply"}
    assert load_records(path, columns) == [Record("Who?", "", "I.")]
    assert load_data(path, {"question": "ask", "answer": "reply"}).format.name == "question/answer"
    error = refusal(tmp_path, [entry], {"instruction": "asked"})
    assert (
        "entry 0 of" in error and "no field 'asked', which columns names for 'instruction'" in error
    )


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("Alpaca", "instruction"),
        ("Alpaca", "output"),
        ("Dolly", "response"),
        ("prompt/completion", "completion"),
        ("question/answer", "question"),
        ("messages", "messages"),
        ("ShareGPT", "conversations"),
        ("text", "text"),
        ("Alpaca pair", "rejected"),
        ("pair", "prompt"),
        ("message pair", "prompt"),
        ("message pair", "rejected"),
        ("dialogue pair", "rejected"),
    ],
)
def test_a_field_that_is_missing_is_named_with_its_entry(tmp_path, name, field):
    entry = {k: v for k, v in ENTRIES[name][0].items() if k in (*KNOWN[name].fields, "input")}
    without = {k: v for k, v in entry.items() if k != field}
    error = refusal(tmp_path, [entry, entry, without, entry])
    if field == "prompt" and "rejected" in entry:
        assert "entry 2 of" in error and "is dialogue pair, but entry 0 of" in error
    else:
        assert "entry 2 of" in error and f"has no field '{field}'; expected {name}: " in error


KINDS = {"a number": 3, "null": None, "a list": ["3"], "an object": {"a": 3}, "true or false": True}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", ["instruction", "input", "output", "system"])
def test_a_field_that_is_not_text_is_named_with_its_entry(tmp_path, field, kind):
    good = ENTRIES["Alpaca"][0]
    if kind == "null" and field in ("input", "system"):
        return
    error = refusal(tmp_path, [good, {**good, field: KINDS[kind]}])
    assert "entry 1 of" in error and f"field '{field}' is not text, but {kind};" in error


@pytest.mark.parametrize("value", ["", " ", "\n\t"])
@pytest.mark.parametrize("field", ["instruction", "output"])
def test_a_field_that_is_empty_is_named_with_its_entry(tmp_path, field, value):
    error = refusal(tmp_path, [{**ENTRIES["Alpaca"][0], field: value}])
    assert "entry 0 of" in error and f"field '{field}' is empty" in error


def test_half_a_surrogate_pair_is_no_text(tmp_path):
    path = tmp_path / "data.json"
    path.write_text('[{"text": "\\ud800"}]')
    expected = "field 'text' is not valid text: it contains half a surrogate pair"
    with pytest.raises(UserError, match=expected):
        load_records(path)


@pytest.mark.parametrize(
    ("entry", "kind"), [("Add.", "is a text"), (["Add."], "is a list"), (None, "is null")]
)
def test_an_entry_that_is_no_object_is_named(tmp_path, entry, kind):
    error = refusal(tmp_path, [MESSAGES, entry])
    assert "entry 1 of" in error and kind in error and "not an object" in error


def test_an_entry_of_no_format_is_told_with_its_fields_and_all_formats(tmp_path):
    error = refusal(tmp_path, [{"ask": "a", "reply": "b"}])
    assert "has ask, reply: no known format has them" in error
    assert all(data_format.name in error for data_format in FORMATS)
    assert "has no fields" in refusal(tmp_path, [{}])


def test_an_entry_that_nearly_has_a_format_is_told_what_it_lacks(tmp_path):
    error = refusal(tmp_path, [{"question": "Who?"}])
    assert "has no field 'answer'; expected question/answer: question, answer" in error


@pytest.mark.parametrize(
    ("field", "lacks", "name"),
    [
        ("instruction", "output", "Alpaca"),
        ("prompt", "completion", "prompt/completion"),
        ("chosen", "rejected", "dialogue pair"),
    ],
)
def test_an_entry_with_one_field_lacks_what_the_shortest_format_wants(tmp_path, field, lacks, name):
    error = refusal(tmp_path, [{field: "a"}])
    assert f"has no field '{lacks}'; expected {name}: {field}, {lacks}" in error


@pytest.mark.parametrize("name", [n for n in ENTRIES if n not in ("Alpaca", "Alpaca pair")])
def test_a_mixture_is_named_with_both_entries(tmp_path, name):
    error = refusal(tmp_path, [ENTRIES["Alpaca"][0], ENTRIES["Alpaca"][0], ENTRIES[name][0]])
    assert f"is {name}, but entry 0 of" in error and "entry 2 of" in error and "is Alpaca" in error


def test_files_of_a_folder_have_one_format(tmp_path):
    for name, file in (("Dolly", "b.jsonl"), ("Alpaca", "a.jsonl")):
        (tmp_path / file).write_text(json.dumps(ENTRIES[name][0]))
    with pytest.raises(UserError, match=r"line 1 of .*b.jsonl is Dolly, but line 1 of .*a.jsonl"):
        load_records(tmp_path)


def test_two_formats_in_one_data_set_are_told(tmp_path):
    path = tmp_path / "data.json"
    error = refusal(tmp_path, [ENTRIES["Alpaca"][0], ENTRIES["Dolly"][0]])
    expected = f"entry 1 of {path} is Dolly, but entry 0 of {path} is Alpaca: "
    assert error.startswith(expected + "a data set has one format; split it")


def test_a_field_without_a_name_is_no_input(tmp_path):
    entry = {"question": "Add.", "answer": "3", "": "never read"}
    assert load_records(saved(tmp_path, [entry])) == [Record("Add.", "", "3")]
