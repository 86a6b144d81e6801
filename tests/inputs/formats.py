"""The fields of a data set's entries, in each format."""

from typing import Any

from tests.inputs.row import GOOD, Row, refused, works

USER, ASSISTANT = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


def bad(name: str, entries: Any, words: str, options: str = "") -> Row:
    """Entries that are refused."""
    return refused(name, f"stats d.json {options}", words, {"d.json": entries})


def good(name: str, entries: Any, words: str, options: str = "--count 1") -> Row:
    """Entries that are shown."""
    return works(name, f"show d.json {options}", words, {"d.json": entries})


def turns(*messages: Any) -> list[Any]:
    """One entry in the format of messages."""
    return [{"messages": list(messages)}]


def shared(*pairs: tuple[Any, Any]) -> list[Any]:
    """One entry in the format of ShareGPT."""
    return [{"conversations": [{"from": speaker, "value": text} for speaker, text in pairs]}]


# fmt: off
# ruff: noqa: E501 (a row is a line)
ROWS = [
    bad("no output", [{"instruction": "a"}], "entry 0 of d.json has no field 'output'"),
    bad("no output later", [GOOD[0], {"instruction": "a"}], "entry 1 of d.json has no field 'output'"),
    bad("unknown fields", [{"ask": "a", "reply": "b"}], "ask, reply"),
    bad("another format later", [GOOD[0], {"prompt": "a", "completion": "b"}], "entry 1 of d.json is prompt/completion, but entry 0"),
    bad("an empty output", [{"instruction": "a", "output": ""}], "field 'output' is empty"),
    bad("an output of spaces", [{"instruction": "a", "output": " \n"}], "field 'output' is empty"),
    bad("an output that is null", [{"instruction": "a", "output": None}], "field 'output'"),
    bad("an output that is a number", [{"instruction": "a", "output": 3}], "field 'output'"),
    bad("an output that is a list", [{"instruction": "a", "output": ["b"]}], "field 'output'"),
    bad("an empty instruction", [{"instruction": "", "output": "b"}], "field 'instruction' is empty"),
    bad("an instruction that is true", [{"instruction": True, "output": "b"}], "field 'instruction'"),
    bad("an input that is a number", [{"instruction": "a", "input": 3, "output": "b"}], "field 'input'"),
    bad("an input that is an object", [{"instruction": "a", "input": {}, "output": "b"}], "field 'input'"),
    bad("messages that are a text", [{"messages": "hi"}], "field 'messages'"),
    bad("no messages", turns(), "field 'messages'"),
    bad("a message that is a text", turns("hi"), "turn 0"),
    bad("a message without content", turns({"role": "user"}), "turn 0"),
    bad("a role that is an object", turns({"role": {"a": 1}, "content": "x"}), "turn 0"),
    bad("a role that is a list", turns({"role": ["user"], "content": "x"}), "turn 0"),
    bad("a role that is a number", turns({"role": 1, "content": "x"}), "turn 0"),
    bad("a role that is null", turns({"role": None, "content": "x"}), "turn 0"),
    bad("an unknown role", turns({"role": "tool", "content": "x"}), "the role 'tool'; known are"),
    bad("control codes in a role", turns({"role": "\x1b[2J", "content": "x"}), "\\x1b[2J"),
    bad("content that is null", turns(USER, {"role": "assistant", "content": None, "tool_calls": []}), "turn 1"),
    bad("content that is a list of parts", turns(USER, {"role": "assistant", "content": [{"type": "text", "text": "b"}]}), "turn 1"),
    bad("two questions", turns(USER, USER), "turn 1"),
    bad("an answer first", turns(ASSISTANT, USER), "turn 0"),
    bad("a question last", turns(USER, ASSISTANT, USER), "there is no answer to learn"),
    bad("a system message alone", turns({"role": "system", "content": "x"}), "field 'messages'"),
    bad("two system messages", turns({"role": "system", "content": "x"}, {"role": "system", "content": "y"}, USER, ASSISTANT), "turn 1"),
    bad("an empty turn", turns(USER, {"role": "assistant", "content": " "}), "turn 1"),
    bad("a speaker that is an object", shared(({"a": 1}, "x")), "turn 0"),
    bad("an unknown speaker", shared(("martian", "x")), "'martian'"),
    bad("no value", [{"conversations": [{"from": "human"}]}], "turn 0"),
    bad("chosen with a role that is an object", [{"chosen": [{"role": {}, "content": "x"}], "rejected": "b"}], "field 'chosen'"),
    bad("a transcript without turns", [{"chosen": "hi", "rejected": "ho"}], "does not begin with 'Human:'"),
    bad("pairs that differ in the question", [{"chosen": "Human: a\n\nAssistant: b", "rejected": "Human: c\n\nAssistant: d"}], "differ before the last answer"),
    bad("no rejected", [{"instruction": "a", "chosen": "b"}], "no field 'rejected'"),
    bad("a text that is a list", [{"text": ["a"]}], "field 'text'"),
    bad("an empty text", [{"text": ""}], "field 'text' is empty"),
    bad("a weight that is a text", turns(USER, {**ASSISTANT, "weight": "x"}), "weight"),
    bad("columns that are not there", GOOD, "no field 'ask', which columns names for 'instruction'", """--columns '{"instruction": "ask"}'"""),
    bad("columns for an unknown field", GOOD, "no field", """--columns '{"question": "ask"}'"""),
    bad("columns that are a list", GOOD, "columns must be", "--columns '[1]'"),
    bad("columns that are a text", GOOD, "columns must be", "--columns ask"),
    bad("columns to a list", GOOD, "columns must be", """--columns '{"instruction": ["ask"]}'"""),
    good("an input that is null", [{"instruction": "a", "input": None, "output": "b"}], "entry 0"),
    good("an input of one space", [{"instruction": "a", "input": " ", "output": "b"}], "31 prompt tokens"),
    good("a marker in an answer", [{"instruction": "a", "output": "### Response:\nb"}], "'###'"),
    good("braces in a question", [{"instruction": "{input} {instruction} {x}", "output": "b"}], "{input} {instruction} {x}"),
    good("a weight of 0", turns(USER, {"role": "assistant", "content": "Five", "weight": 0}, USER, {"role": "assistant", "content": "Four.", "weight": 1}), "entry 0"),
    good("a history", [{"instruction": "a", "output": "b", "history": [["Who?", "Me."]]}], "Who?"),
    good("a system message in an Alpaca entry", [{"instruction": "a", "output": "b", "system": "Be kind."}], "Be kind."),
    good("a conversation", turns({"role": "system", "content": "Be kind."}, USER, ASSISTANT, USER, ASSISTANT), "Be kind."),
    good("ShareGPT", shared(("human", "a"), ("gpt", "b")), "entry 0"),
    good("Dolly", [{"instruction": "a", "context": "", "response": "b"}], "entry 0"),
    good("columns", [{"ask": "a", "reply": "b"}], "entry 0", """--columns '{"instruction": "ask", "output": "reply"}'"""),
    good("an answer's end", [{"instruction": "a", "output": "b."}], "predicts"),
]
