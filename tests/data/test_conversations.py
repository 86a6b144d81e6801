"""Conversations: what is refused of messages and of transcripts, and where."""

import pytest

from tests.data.entries import FIRST, MESSAGES, SHARED, message, refusal, shared

USER, BOT = message("user", "Hi."), message("assistant", "Hello!")
BAD_TURNS = {
    "no list": ("Hi.", "is not a list of turns"),
    "empty": ([], "is not a list of turns, or is empty"),
    "no objects": (["Hi."], "turn 0, is not an object with 'role' and 'content'"),
    "no content": ([{"role": "user"}], "turn 0, is not an object with 'role' and 'content'"),
    "a role that is a list": ([USER, message(["a"], "3")], "turn 1, has the role ['a']; known are"),
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
    error = refusal(tmp_path, [MESSAGES, {"messages": turns}])
    assert "entry 1 of" in error and "field 'messages'" in error and text in error


def test_a_share_that_ends_with_the_human_is_refused(tmp_path):
    error = refusal(tmp_path, [{"conversations": [*SHARED, shared("human", "More.")]}])
    assert "field 'conversations' ends with the user's turn: there is no answer" in error


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
