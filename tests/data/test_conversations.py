"""Conversations: what is refused of messages and of transcripts, and where."""

import pytest

from minigpt2.data.examples import encode
from minigpt2.data.template import TEMPLATES
from tests.data.entries import (
    FIRST,
    MESSAGES,
    SHARED,
    load_records,
    message,
    refusal,
    saved,
    shared,
)
from tests.data.small import small_tokenizer

BYTES = small_tokenizer()
STOP = BYTES.end_of_text
USER, BOT = message("user", "Hi."), message("assistant", "Hello!")
BAD_TURNS = {
    "no list": ("Hi.", "is not a list of turns"),
    "empty": ([], "is not a list of turns, or is empty"),
    "no objects": (["Hi."], "turn 0, is not an object with 'role' and 'content'"),
    "no content": ([{"role": "user"}], "turn 0, is not an object with 'role' and 'content'"),
    "a role that is a list": (
        [USER, message(["a"], "3")],
        "turn 1, has a 'role' that is a list; known are",
    ),
    "a role that is an object": (
        [message({"a": 1}, "3"), BOT],
        "turn 0, has a 'role' that is an object;",
    ),
    "a role without end": ([message("x" * 1_000_000, "3"), BOT], "turn 0, has the role 'xxx"),
    "a weight of another kind": (
        [USER, {**BOT, "weight": 0.5}],
        "turn 1, has a weight that is neither 0 nor 1",
    ),
    "a weight that is a list": ([USER, {**BOT, "weight": [0]}], "turn 1, has a weight that is"),
    "no answer to learn": ([USER, {**BOT, "weight": 0}], "has no answer to learn: all have the"),
    "a tool": ([USER, message("tool", "3")], "turn 1, has the role 'tool'; known are system, user"),
    "content is no text": ([USER, message("assistant", None)], "turn 1, is not text, but null"),
    "a call of a tool": (
        [USER, {**message("assistant", None), "tool_calls": [{"id": "a"}]}, message("tool", "3")],
        "turn 1, is not text, but null",
    ),
    "content is empty": ([USER, message("assistant", " ")], "turn 1, is empty"),
    "begins with the assistant": ([BOT, USER], "turn 0, is the assistant's, not the user's"),
    "user twice": ([USER, USER, BOT], "turn 1, is the user's, not the assistant's"),
    "begins with the assistant, after the system": (
        [message("system", "x"), BOT],
        "turn 1, is the assistant's, not the user's",
    ),
    "late system": ([USER, message("system", "x")], "turn 1, is the system's"),
    "ends with the user": ([USER, BOT, USER], "ends with the user's turn"),
    "system alone": ([message("system", "x")], "ends with the user's turn"),
}


@pytest.mark.parametrize("kind", BAD_TURNS)
def test_a_conversation_that_cannot_be_used_is_refused(tmp_path, kind):
    turns, text = BAD_TURNS[kind]
    error = refusal(tmp_path, [MESSAGES, {"messages": turns}])
    assert "entry 1 of" in error and "field 'messages'" in error and text in error
    assert len(error) < 600


def test_a_share_that_ends_with_the_human_is_refused(tmp_path):
    error = refusal(tmp_path, [{"conversations": [*SHARED, shared("human", "More.")]}])
    assert "field 'conversations' ends with the user's turn: there is no answer" in error


@pytest.mark.parametrize(
    ("chosen", "rejected", "text"),
    [
        ("Hi." + FIRST + "So.", FIRST + "No.", "field 'chosen' does not begin with 'Human:'"),
        (FIRST + "So.", FIRST.replace("Why", "How") + "No.", "differ before the last answer"),
        ("Hi there.", FIRST + "No.", "field 'chosen' does not begin with 'Human:'"),
        (FIRST + "So.", FIRST, "field 'rejected', a turn, is empty"),
        (FIRST + "So.", 3, "field 'rejected' is not text"),
        (FIRST + "So.\n\nHuman: And?", FIRST + "No.", "ends with the user's turn"),
    ],
)
def test_dialogue_pairs_that_cannot_be_used_are_refused(tmp_path, chosen, rejected, text):
    assert text in refusal(tmp_path, [{"chosen": chosen, "rejected": rejected}])


def weighed(*weights):
    """A conversation whose answers have these weights."""
    turns = []
    for number, weight in enumerate(weights):
        answer = message("assistant", f"{number}!")
        turns += [
            message("user", f"{number}?"),
            answer | ({} if weight is None else {"weight": weight}),
        ]
    return {"messages": turns}


def test_an_answer_with_weight_0_is_read_and_not_learned(tmp_path):
    (record,) = load_records(saved(tmp_path, [weighed(0, None, 0, 1)]))
    assert (record.instruction, record.output) == ("3?", "3!")
    assert [exchange.is_learned for exchange in record.earlier] == [False, True, False]
    example = encode(record, BYTES, TEMPLATES["chat"])
    pairs = zip(example.ids, example.is_answer, strict=True)
    learned = [token for token, is_answer in pairs if is_answer]
    assert learned == [*BYTES.encode("1!"), STOP, *BYTES.encode("3!"), STOP]
    (other,) = load_records(saved(tmp_path, [weighed(1, 1, 1, 1)]))
    assert encode(other, BYTES, TEMPLATES["chat"]).ids == example.ids


def test_what_follows_the_last_answer_that_is_learned_is_left_out(tmp_path):
    first, all_of_it = weighed(1), weighed(1, 0, 0.0)
    assert load_records(saved(tmp_path, [first])) == load_records(saved(tmp_path, [all_of_it]))


@pytest.mark.parametrize("text", ["", " \n", None])
def test_an_empty_message_of_the_system_is_none(tmp_path, text):
    records = load_records(saved(tmp_path, [{"messages": [message("system", text), USER, BOT]}]))
    assert records == load_records(saved(tmp_path, [{"messages": [USER, BOT]}]))


def test_the_weight_of_a_question_changes_nothing(tmp_path):
    entry = {"messages": [{**USER, "weight": 0}, {**BOT, "weight": True}]}
    assert load_records(saved(tmp_path, [entry])) == load_records(saved(tmp_path, [MESSAGES]))


@pytest.mark.parametrize(
    ("user", "assistant"), [("user", "assistant"), ("human", "gpt"), ("human", "chatgpt")]
)
def test_a_speaker_has_several_names(tmp_path, user, assistant):
    entry = {"messages": [message(user, "Hi."), message(assistant, "Hello!")]}
    assert load_records(saved(tmp_path, [entry])) == load_records(saved(tmp_path, [MESSAGES]))
