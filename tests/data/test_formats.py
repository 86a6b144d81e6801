"""Formats: what becomes of an entry of each, spelled out, and what is refused."""

import json

import pytest

from minigpt2.data.formats import FORMATS, load_data, load_records
from minigpt2.data.records import Exchange, Record
from minigpt2.errors import UserError


def message(role, content):
    return {"role": role, "content": content}


def said(speaker, value):
    return {"from": speaker, "value": value}


TALK = [message("user", "Hi."), message("assistant", "Hello!")]
MORE = [message("system", "Be kind."), *TALK, message("user", "Why?"), message("assistant", "So.")]
SHARED = [said("human", "Hi."), said("gpt", "Hello!")]
FIRST = "\n\nHuman: Hi.\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant: "
MESSAGES = {"messages": TALK}

KNOWN = {known.name: known for known in FORMATS}
ENTRIES = {
    "Alpaca": (
        {"instruction": "Add.", "input": "1 + 2", "output": "3", "text": "passed over"},
        Record("Add.", "1 + 2", "3"),
    ),
    "Dolly": (
        {"instruction": "Add.", "context": "1 + 2", "response": "3", "category": "sum"},
        Record("Add.", "1 + 2", "3"),
    ),
    "prompt/completion": ({"prompt": "Say a", "completion": " b"}, Record("Say a", "", " b")),
    "question/answer": ({"question": "Who?", "answer": "I."}, Record("Who?", "", "I.")),
    "messages": (
        {"messages": MORE},
        Record("Why?", "", "So.", "Be kind.", (Exchange("Hi.", "Hello!"),)),
    ),
    "ShareGPT": (
        {"conversations": [said("system", "Be kind."), *SHARED]},
        Record("Hi.", "", "Hello!", "Be kind."),
    ),
    "text": ({"text": "Once upon a time."}, Record("", "", "Once upon a time.")),
    "Alpaca pair": (
        {"instruction": "Add.", "input": "1 + 2", "output": "x", "chosen": "3", "rejected": "4"},
        Record("Add.", "1 + 2", "3", rejected="4"),
    ),
    "pair": (
        {"prompt": "Add.", "chosen": "3", "rejected": "4"},
        Record("Add.", "", "3", rejected="4"),
    ),
    "dialogue pair": (
        {"chosen": FIRST + "So.", "rejected": FIRST + "No."},
        Record("Why?", "", "So.", "", (Exchange("Hi.", "Hello!"),), "No."),
    ),
}


def saved(folder, entries):
    """A file of these entries."""
    path = folder / "data.json"
    path.write_text(json.dumps(entries))
    return path


def refusal(folder, entries, columns=None):
    """What is said of a data set."""
    with pytest.raises(UserError) as error:
        load_data(saved(folder, entries), columns)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_format_has_an_entry_here():
    assert {known.name for known in FORMATS} == set(ENTRIES)


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_of_each_format_spelled_out(tmp_path, name):
    entry, record = ENTRIES[name]
    records, known = load_data(saved(tmp_path, [entry]))
    assert records == [record] and known.name == name


@pytest.mark.parametrize("name", ["Alpaca", "Dolly", "Alpaca pair"])
def test_an_input_may_be_absent_or_empty(tmp_path, name):
    entry, record = ENTRIES[name]
    field = {"Dolly": "context"}.get(name, "input")
    without = {k: v for k, v in entry.items() if k != field}
    expected = [record._replace(input="")] * 2
    assert load_records(saved(tmp_path, [without, {**without, field: ""}])) == expected


def test_a_pair_may_hold_messages(tmp_path):
    other = [TALK[0], message("assistant", "Go away!")]
    entry = {"chosen": TALK, "rejected": other}
    assert load_records(saved(tmp_path, [entry])) == [
        Record("Hi.", "", "Hello!", rejected="Go away!")
    ]


def test_text_is_kept_as_it_is(tmp_path):
    entry = {"instruction": " Say ö. ", "input": "", "output": "ö\n"}
    assert load_records(saved(tmp_path, [entry])) == [Record(" Say ö. ", "", "ö\n")]


def test_columns_give_fields_other_names(tmp_path):
    entry = {"ask": "Who?", "reply": "I.", "output": "passed over"}
    path = saved(tmp_path, [entry])
    columns = {"instruction": "ask", "output": "reply"}
    assert load_records(path, columns) == [Record("Who?", "", "I.")]
    assert load_data(path, {"question": "ask", "answer": "reply"}).format.name == "question/answer"
    said = refusal(tmp_path, [entry], {"instruction": "asked"})
    assert (
        "entry 0 of" in said and "no field 'asked', which columns names for 'instruction'" in said
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
        ("dialogue pair", "rejected"),
    ],
)
def test_a_field_that_is_missing_is_named_with_its_entry(tmp_path, name, field):
    entry = {k: v for k, v in ENTRIES[name][0].items() if k in (*KNOWN[name].fields, "input")}
    without = {k: v for k, v in entry.items() if k != field}
    said = refusal(tmp_path, [entry, entry, without, entry])
    if (name, field) == ("pair", "prompt"):
        assert "entry 2 of" in said and "is dialogue pair, but entry 0 of" in said
    else:
        assert "entry 2 of" in said and f"has no field '{field}'; expected {name}: " in said


@pytest.mark.parametrize("value", [3, None, ["3"], {"text": "3"}, True], ids=str)
@pytest.mark.parametrize("field", ["instruction", "input", "output"])
def test_a_field_that_is_not_text_is_named_with_its_entry(tmp_path, field, value):
    good = ENTRIES["Alpaca"][0]
    said = refusal(tmp_path, [good, {**good, field: value}])
    assert "entry 1 of" in said and f"field '{field}' is not text" in said


@pytest.mark.parametrize("value", ["", " ", "\n\t"])
@pytest.mark.parametrize("field", ["instruction", "output"])
def test_a_field_that_is_empty_is_named_with_its_entry(tmp_path, field, value):
    said = refusal(tmp_path, [{**ENTRIES["Alpaca"][0], field: value}])
    assert "entry 0 of" in said and f"field '{field}' is empty" in said


def test_half_a_surrogate_pair_is_no_text(tmp_path):
    path = tmp_path / "data.json"
    path.write_text('[{"text": "\\ud800"}]')
    with pytest.raises(UserError, match="field 'text' is no text: half a surrogate pair"):
        load_records(path)


@pytest.mark.parametrize(("entry", "kind"), [("Add.", "str"), (["Add."], "list"), (None, "None")])
def test_an_entry_that_is_no_object_is_named(tmp_path, entry, kind):
    said = refusal(tmp_path, [MESSAGES, entry])
    assert "entry 1 of" in said and kind in said and "not an object" in said


def test_an_entry_of_no_format_is_told_with_its_fields_and_all_formats(tmp_path):
    said = refusal(tmp_path, [{"ask": "a", "reply": "b"}])
    assert "has ask, reply: no format is known" in said
    assert all(known.name in said for known in FORMATS)
    assert "has no fields" in refusal(tmp_path, [{}])


def test_an_entry_that_nearly_has_a_format_is_told_what_it_lacks(tmp_path):
    said = refusal(tmp_path, [{"question": "Who?"}])
    assert "has no field 'answer'; expected question/answer: question, answer" in said


@pytest.mark.parametrize("name", [n for n in ENTRIES if n not in ("Alpaca", "Alpaca pair")])
def test_a_mixture_is_named_with_both_entries(tmp_path, name):
    said = refusal(tmp_path, [ENTRIES["Alpaca"][0], ENTRIES["Alpaca"][0], ENTRIES[name][0]])
    assert f"is {name}, but entry 0 of" in said and "entry 2 of" in said and "is Alpaca" in said


def test_files_of_a_folder_have_one_format(tmp_path):
    for name, file in (("Dolly", "b.jsonl"), ("Alpaca", "a.jsonl")):
        (tmp_path / file).write_text(json.dumps(ENTRIES[name][0]))
    with pytest.raises(UserError, match=r"line 1 of .*b.jsonl is Dolly, but line 1 of .*a.jsonl"):
        load_records(tmp_path)


USER, BOT = message("user", "Hi."), message("assistant", "Hello!")
BAD_TURNS = {
    "no list": ("Hi.", "is no list of turns"),
    "empty": ([], "is no list of turns, or an empty one"),
    "no objects": (["Hi."], "turn 0, is no object with 'role' and 'content'"),
    "no content": ([{"role": "user"}], "turn 0, is no object with 'role' and 'content'"),
    "a tool": ([USER, message("tool", "3")], "turn 1, has the role 'tool'; known are system, user"),
    "content is no text": ([USER, message("assistant", None)], "turn 1, is not text"),
    "content is empty": ([USER, message("assistant", " ")], "turn 1, is empty"),
    "begins with the assistant": ([BOT, USER], "turn 0, is the assistant's, not the user's"),
    "user twice": ([USER, USER, BOT], "turn 1, is the user's, not the assistant's"),
    "late system": ([USER, message("system", "x")], "turn 1, is the system's"),
    "ends with the user": ([USER, BOT, USER], "ends with the user's turn"),
    "system alone": ([message("system", "x")], "ends with the user's turn"),
}


@pytest.mark.parametrize("kind", BAD_TURNS)
def test_a_conversation_that_cannot_be_used_is_refused(tmp_path, kind):
    turns, text = BAD_TURNS[kind]
    found = refusal(tmp_path, [MESSAGES, {"messages": turns}])
    assert "entry 1 of" in found and "field 'messages'" in found and text in found


def test_a_share_that_ends_with_the_human_is_refused(tmp_path):
    found = refusal(tmp_path, [{"conversations": [*SHARED, said("human", "More.")]}])
    assert "field 'conversations' ends with the user's turn: there is no answer" in found


@pytest.mark.parametrize(
    ("chosen", "rejected", "text"),
    [
        (FIRST + "So.", FIRST.replace("Why", "How") + "No.", "differ before the last answer"),
        ("Hi there.", FIRST + "No.", "field 'chosen' does not begin with 'Human:'"),
        (FIRST + "So.", FIRST, "field 'rejected', a turn, is empty"),
        (FIRST + "So.", 3, "field 'rejected' is not text"),
        (FIRST + "So.\n\nHuman: And?", FIRST + "No.", "ends with the user's turn"),
    ],
)
def test_dialogue_pairs_that_cannot_be_used_are_refused(tmp_path, chosen, rejected, text):
    assert text in refusal(tmp_path, [{"chosen": chosen, "rejected": rejected}])


def test_a_pair_without_a_rejected_answer_is_refused(tmp_path):
    entry = {"prompt": "Add.", "chosen": "3", "rejected": " "}
    assert "field 'rejected' is empty" in refusal(tmp_path, [entry])
