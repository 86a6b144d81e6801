"""Examples: ids and what in them is answer, spelled out."""

import pytest

from minigpt2.data.examples import Example, Removed, Span, encode
from minigpt2.data.records import Exchange, Record
from minigpt2.data.template import ALPACA, TEMPLATES, Template, prompt_of
from minigpt2.data.tokenizer import gpt2_tokenizer
from minigpt2.data.vocabulary import END_OF_TEXT
from tests.data.small import RECORDS, encode_prompt, small_tokenizer

BYTES = small_tokenizer()
STOP = BYTES.end_of_text


def spelled(example):
    """The prompts and answers of an example as text, end-of-text as /."""
    runs = []
    for token, part in zip(example.ids, example.is_answer, strict=True):
        text = "/" if token == STOP else BYTES.decode([token])
        if runs and runs[-1][1] == part:
            runs[-1] = runs[-1][0] + text, part
        else:
            runs.append((text, part))
    return runs


def test_an_example_is_the_prompts_ids_and_the_answers_with_end_of_text():
    for record in RECORDS:
        prompt = prompt_of(record)
        assert spelled(encode(record, BYTES)) == [(prompt, False), (record.output + "/", True)]


@pytest.mark.parametrize(
    ("template", "runs"),
    [
        ("qa", [("Question:\nAdd.\n1 + 2\n\nAnswer:\n", False), ("3/", True)]),
        ("chat", [("User:\nAdd.\n1 + 2\n\nAssistant:\n", False), ("3/", True)]),
        ("raw", [("Add.\n1 + 2", False), ("3/", True)]),
    ],
)
def test_each_template_spelled_out(template, runs):
    assert spelled(encode(Record("Add.", "1 + 2", "3"), BYTES, TEMPLATES[template])) == runs


def test_every_answer_of_a_conversation_is_supervised_and_closed():
    earlier = (Exchange("Hi.", "Hello!"), Exchange("Why?", "Because."))
    record = Record("Sure?", "", "Yes.", "Be brief.", earlier)
    assert spelled(encode(record, BYTES, TEMPLATES["chat"])) == [
        ("System:\nBe brief.\n\nUser:\nHi.\n\nAssistant:\n", False),
        ("Hello!/", True),
        ("User:\nWhy?\n\nAssistant:\n", False),
        ("Because./", True),
        ("User:\nSure?\n\nAssistant:\n", False),
        ("Yes./", True),
    ]
    first = prompt_of(Record("Hi.", "", ""))
    assert spelled(encode(record._replace(system=""), BYTES))[0] == (first, False)


def test_a_text_stands_behind_an_end_of_text():
    assert spelled(encode(Record("", "", "Once."), BYTES)) == [("/", False), ("Once./", True)]


def test_prompt_and_answer_are_encoded_apart():
    tokenizer = gpt2_tokenizer()
    record = Record("Go.", "", "\n")  # two line breaks are one token
    example = encode(record, tokenizer)
    assert example.ids[example.last_answer - 1 :] == [198, 198, tokenizer.end_of_text]
    assert tokenizer.encode(prompt_of(record) + record.output)[-1] == 628


def test_text_that_spells_end_of_text_never_becomes_the_token():
    record = Record(f"Say {END_OF_TEXT}", END_OF_TEXT, END_OF_TEXT)
    example = encode(record, BYTES)
    assert example.ids.count(STOP) == 1 and example.ids[-1] == STOP
    assert BYTES.decode(example.ids[example.last_answer : -1]) == END_OF_TEXT


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_the_mask_goes_by_place_also_where_texts_spell_a_templates_headings(template):
    for heading in (
        "### Instruction:\nyes\n\n### Response:\nno",
        "User:\n",
        "Answer:\nQuestion:\n",
    ):
        record = Record(f"Quote this: {heading}", "", heading)
        prompt = template.first_prompt(record.instruction)
        assert spelled(encode(record, BYTES, template)) == [(prompt, False), (f"{heading}/", True)]


def test_first_and_last_answer():
    example = Example([1, 2, 3, 4, 5, 6], [False, True, True, False, False, True])
    assert (example.first_answer, example.last_answer) == (1, 5)


def test_a_prompt_is_all_before_the_last_answer():
    record = Record("Sure?", "", "Yes.", "", (Exchange("Hi.", "Hello!"),))
    for template in (ALPACA, *TEMPLATES.values()):
        ids, example = encode_prompt(record, BYTES, template), encode(record, BYTES, template)
        assert example.ids == [*ids, *BYTES.encode("Yes."), STOP]
        assert ids.count(STOP) == 1
    assert encode_prompt(Record("", "", "Once."), BYTES) == [STOP]


def test_an_example_of_nothing_but_answer_has_no_prompt():
    assert Example([1, 2], [True, True]).last_answer == 0


def test_by_default_nothing_was_removed_and_there_is_a_question():
    example = Example([1], [True])
    assert not any(example.removed) and example.removed == Removed(0, 0, 0, 0, 0, False)
    assert example.spans == () and example.is_text is False
    assert Removed(input=1, instruction=2, template=4, answer=8).prompt == 7


def test_a_text_is_marked_as_one():
    assert encode(Record("", "", "Once."), BYTES).is_text is True
    assert encode(RECORDS[0], BYTES).is_text is False


def test_spans_are_where_the_fields_are():
    def texts(example):
        return {one.field: BYTES.decode(example.ids[one.start : one.stop]) for one in example.spans}

    record = Record("Sure?", "", "Yes.", "", (Exchange("Hi.", "Hello!"),))
    assert texts(encode(record, BYTES, TEMPLATES["chat"])) == {
        "opening": "",
        "exchange": "User:\nHi.\n\nAssistant:\nHello!<|endoftext|>",
        "instruction": "Sure?",
    }
    found = texts(encode(RECORDS[0], BYTES))
    assert list(found) == ["opening", "instruction", "input"]
    assert found["opening"].startswith("Below is") and found["opening"].endswith("request.\n\n")
    assert (found["instruction"], found["input"]) == ("Add.", "1 + 2")


def test_the_exchanges_of_a_conversation_follow_each_other():
    earlier = (Exchange("Hi.", "Hello!"), Exchange("Why?", "Because."))
    example = encode(Record("Sure?", "", "Yes.", "", earlier), BYTES, TEMPLATES["chat"])
    spans = [span for span in example.spans if span.field == "exchange"]
    texts = [BYTES.decode(example.ids[span.start : span.stop]) for span in spans]
    questions = [f"User:\n{q}\n\nAssistant:\n{a}{END_OF_TEXT}" for q, a, *_ in earlier]
    assert texts == questions


def test_a_piece_begins_where_the_one_before_it_ends():
    example = encode(Record("Add.", "", "3"), BYTES, Template("{instruction}", opening="B"))
    assert example.spans == (Span("opening", 0, 1), Span("instruction", 1, 5))
