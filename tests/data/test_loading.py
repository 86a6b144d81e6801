"""Loading: what is left out is named; whatever an entry is, it is a record or one line."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minigpt2.data.formats import FORMATS
from minigpt2.data.loading import listed, load_data
from minigpt2.data.records import Exchange, Record
from minigpt2.errors import UserError
from minigpt2.wording import shorten
from tests.data.entries import ENTRIES, load_records, message, refusal, saved

GOOD = ENTRIES["Alpaca"][0]
BAD = {
    "an empty answer": {**GOOD, "output": ""},
    "no answer": {"instruction": "Add."},
    "another kind of answer": {**GOOD, "output": 3},
    "no object": 3,
    "another format": ENTRIES["Dolly"][0],
}


@pytest.mark.parametrize(
    ("entry", "record", "template"),
    [
        ({"prompt": "Say"}, Record("Say", "", ""), "raw"),
        ({"question": "Why?"}, Record("Why?", "", ""), "qa"),
        (
            {"instruction": "Add.", "input": "1 2", "system": "Be kind.", "history": [["a", "b"]]},
            Record("Add.", "1 2", "", "Be kind.", (Exchange("a", "b"),)),
            "alpaca",
        ),
        ({"prompt": "Say", "completion": "so."}, Record("Say", "", "so."), "raw"),
    ],
)
def test_prompts_may_be_alone_where_a_policy_answers_them(tmp_path, entry, record, template):
    path = saved(tmp_path, [entry])
    data = load_data(path, prompts=True)
    assert data.records == [record] and data.format.template == template
    if not record.output:
        with pytest.raises(UserError, match="has no field"):
            load_data(path)


def test_entries_that_cannot_be_used_are_counted_and_the_first_places_named(tmp_path):
    entries = [GOOD, *BAD.values(), GOOD, *[BAD["an empty answer"]] * 3]
    error = refusal(tmp_path, entries)
    path = tmp_path / "data.json"
    assert error.startswith(f"entry 1 of {path}: field 'output' is empty; 8 of 10 entries cannot")
    places = "entry 2, entry 3, entry 4, entry 5, entry 7 and 2 more"
    assert error.endswith(f"be used (the next: {places}): --skip-bad leaves them out")


@pytest.mark.parametrize("kind", BAD)
def test_entries_that_cannot_be_used_are_left_out_if_wished(tmp_path, kind):
    entries = [GOOD, BAD[kind], GOOD]
    records, data_format, notes, numbers = load_data(saved(tmp_path, entries), skip_bad=True)
    assert records == load_records(saved(tmp_path, [GOOD, GOOD])) and data_format.name == "Alpaca"
    assert notes[0].startswith(f"{tmp_path}/data.json: left out 1 of 3 entries; entry 1 of ")
    assert numbers == [0, 2]
    assert "1 of 3 entries cannot be used: --skip-bad leaves" in refusal(tmp_path, entries)


def test_lines_that_are_not_json_are_left_out_if_wished(tmp_path):
    path = tmp_path / "data.jsonl"
    lines = [
        json.dumps(GOOD),
        '{"instruction": "Ad',
        json.dumps(GOOD),
        '{"output": 1, "output": 2}',
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(
        UserError, match=r"is not JSON: .*, line 2, column 17; 2 of 4 entries .*: line 4\)"
    ):
        load_data(path)
    assert len(load_data(path, skip_bad=True).records) == 2


def test_the_first_entry_that_can_be_used_decides_the_format(tmp_path):
    entries = [3, {"a": 1}, ENTRIES["Dolly"][0], GOOD]
    data = load_data(saved(tmp_path, entries), skip_bad=True)
    assert data.format.name == "Dolly" and len(data.records) == 1


def test_a_data_set_of_which_nothing_can_be_used_is_refused(tmp_path):
    path = saved(tmp_path, [BAD["an empty answer"]] * 3)
    with pytest.raises(UserError, match=r"is empty; none of the 3 entries can be used$"):
        load_data(path, skip_bad=True)


def test_files_and_fields_that_are_passed_over_are_named(tmp_path):
    saved(tmp_path, [{**GOOD, "category": "sum"}, {**GOOD, "id": 7}])
    (tmp_path / "table.csv").write_text("a,b")
    (tmp_path / "inner").mkdir()
    assert load_data(tmp_path).notes == [
        f"{tmp_path}: passed over inner (a folder), table.csv",
        f"{tmp_path}: passed over the fields text, category, id",
    ]


def test_fields_of_messages_that_are_passed_over_are_named(tmp_path):
    turns = [
        message("user", "Hi."),
        {**message("assistant", "Hello!"), "tool_calls": [], "weight": 1},
    ]
    data = load_data(saved(tmp_path, [{"messages": turns, "tools": []}]))
    assert data.notes == [
        f"{tmp_path}/data.json: passed over the fields messages.tool_calls, tools"
    ]


def test_names_in_a_sentence_are_few_and_short(tmp_path):
    entries = [{**GOOD, **{"x" * 1_000_000 + str(n): 1 for n in range(20)}}]
    (note,) = load_data(saved(tmp_path, entries)).notes
    assert len(note) < 600 and note.endswith(" and 16 more")
    assert len(refusal(tmp_path, [{"x" * 1_000_000: 1}])) < 1500
    assert len(refusal(tmp_path, [GOOD], {"instruction": "x" * 1_000_000})) < 600


def test_a_field_of_columns_that_no_format_has_is_named(tmp_path):
    error = refusal(tmp_path, [GOOD], {"instuction": "ask"})
    assert "'instuction', which no format has; did you mean 'instruction'?" in error
    assert "known are messages: messages" in refusal(tmp_path, [GOOD], {"zzz": "ask"})


def test_a_column_of_a_field_that_may_be_empty_may_be_absent_but_not_everywhere(tmp_path):
    entries = [{"q": "Add.", "more": "1 + 2", "a": "3"}, {"q": "Add.", "a": "3"}]
    columns = {"instruction": "q", "output": "a", "input": "more"}
    records = [Record("Add.", "1 + 2", "3"), Record("Add.", "", "3")]
    assert load_records(saved(tmp_path, entries), columns) == records
    error = refusal(tmp_path, entries, {**columns, "input": "mroe"})
    assert "no entry of" in error and "has a field 'mroe', which columns names for 'input'" in error
    error = refusal(tmp_path, entries, {**columns, "output": "answer"})
    assert "has no field 'answer', which columns names for 'output'; it has q, more, a" in error


TEXTS = st.text(max_size=4) | st.sampled_from(["a", " ", "user", "assistant", "Human: a", "\ud800"])
NAMES = st.sampled_from(sorted({n for f in FORMATS for n in (*f.fields, *f.optional, *f.turn)}))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXTS, inner, max_size=3),
    max_leaves=8,
)
TURNS = st.fixed_dictionaries(
    {"role": TEXTS | VALUES, "content": TEXTS | VALUES}, optional={"weight": VALUES}
)
NEARLY = st.sampled_from(FORMATS).flatmap(
    lambda data_format: st.fixed_dictionaries(
        {name: TEXTS | st.lists(TURNS, max_size=3) | VALUES for name in data_format.fields},
        optional=dict.fromkeys((*data_format.optional, "other"), TEXTS | VALUES),
    )
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(NEARLY | VALUES, min_size=1, max_size=4), st.booleans())
def test_whatever_an_entry_is_it_is_a_record_or_one_line_that_names_its_place(
    tmp_path, entries, skip_bad
):
    path = saved(tmp_path, entries)
    try:
        records, _, notes, _ = load_data(path, skip_bad=skip_bad)
    except UserError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return
    assert all(isinstance(record, Record) and record.output.strip() for record in records)
    left_out = len(entries) - len(records)
    assert left_out == 0 or (
        skip_bad and f"left out {left_out} of {len(entries)} entries" in notes[0]
    )


def test_one_field_that_is_passed_over_is_a_field(tmp_path):
    path = tmp_path / "data.json"
    (one,) = load_data(saved(tmp_path, [{"question": "a", "answer": "b", "id": 1}])).notes
    assert one == f"{path}: passed over the field id"


def test_earlier_exchanges_have_no_fields_that_could_be_passed_over(tmp_path):
    entry = {"instruction": "Add.", "output": "3", "history": [["Hi.", "Hello!"]]}
    assert load_data(saved(tmp_path, [entry])).notes == []


def test_fields_of_the_entry_and_of_its_messages_are_named_in_their_order(tmp_path):
    turns = [message("user", "Hi."), {**message("assistant", "Hello!"), "tool_calls": []}]
    data = load_data(saved(tmp_path, [{"tools": [], "messages": turns}]))
    names = "tools, messages.tool_calls"
    assert data.notes == [f"{tmp_path}/data.json: passed over the fields {names}"]


def test_two_entries_of_which_none_can_be_used_are_counted(tmp_path):
    assert refusal(tmp_path, [BAD["an empty answer"]] * 2).endswith(
        "is empty; none of the 2 entries can be used"
    )
    assert refusal(tmp_path, [BAD["an empty answer"]]).endswith("is empty")


def test_a_folder_may_have_any_name(tmp_path):
    folder = tmp_path / "best of all"
    folder.mkdir()
    error = refusal(folder, [GOOD, *[BAD["an empty answer"]] * 2])
    assert error.endswith("(the next: entry 2): --skip-bad leaves them out")


def test_names_in_a_row_are_as_many_as_fit():
    assert listed(list("abcde")) == "a, b, c, d, e"
    assert listed(["x" * 60, "y" * 61], 1) == "x" * 60 + " and 1 more"
    assert listed(["y" * 61]) == shorten("y" * 61, width=60)
