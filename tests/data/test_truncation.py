"""Truncation: what is cut, by policy, spelled out and for any example."""

import dataclasses
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minigpt2.data.examples import Example, Removed, Span, encode
from minigpt2.data.records import Exchange, Record
from minigpt2.data.template import TEMPLATES, Template
from minigpt2.data.truncation import (
    Cuts,
    Policy,
    fit_prompt,
    fit_to_context,
    require_examples,
    split_text,
    truncate,
    truncate_all,
)
from minigpt2.errors import UserError
from tests.data.small import MERGES, RECORDS, small_tokenizer

BYTES = small_tokenizer()
STOP = 99
quick = settings(deadline=None, max_examples=200)

# prompt 1 2, answer 4 5 6 7 STOP; and a conversation: 1 2 | 3 STOP | 4 5 | 6 7 STOP
SINGLE = Example([1, 2, 4, 5, 6, 7, STOP], [False] * 2 + [True] * 5)
TALK = Example(
    [1, 2, 3, STOP, 4, 5, 6, 7, STOP],
    [False, False, True, True, False, False, True, True, True],
    (Span("opening", 0, 1), Span("exchange", 1, 4), Span("instruction", 4, 5)),
)


def shown(example):
    """The ids, a supervised one with a minus sign."""
    return [-i if part else i for i, part in zip(example.ids, example.is_answer, strict=True)]


@pytest.mark.parametrize(
    ("policy", "context", "ids", "removed"),
    [
        ("answer", 6, [1, 2, -4, -5, -6, -7, -STOP], Removed()),
        ("answer", 5, [1, 2, -4, -5, -6, -7], Removed(answer=1)),
        ("answer", 4, [1, 2, -4, -5, -6], Removed(answer=2)),
        ("answer", 3, [2, -4, -5, -6], Removed(template=1, answer=2)),
        ("answer", 1, [2, -4], Removed(template=1, answer=4)),
        ("prompt", 6, [1, 2, -4, -5, -6, -7, -STOP], Removed()),
        ("prompt", 5, [2, -4, -5, -6, -7, -STOP], Removed(template=1)),
        ("prompt", 4, [2, -4, -5, -6, -7], Removed(template=1, answer=1)),
        ("prompt", 1, [2, -4], Removed(template=1, answer=4)),
    ],
)
def test_one_question_spelled_out(policy, context, ids, removed):
    shorter = truncate(SINGLE, context, policy)
    assert shown(shorter) == ids and shorter.removed == removed


@pytest.mark.parametrize(
    ("policy", "context", "ids", "removed"),
    [
        ("answer", 8, [1, 2, -3, -STOP, 4, 5, -6, -7, -STOP], Removed()),
        ("answer", 7, [1, 4, 5, -6, -7, -STOP], Removed(exchanges=3)),
        ("answer", 5, [1, 4, 5, -6, -7, -STOP], Removed(exchanges=3)),
        ("answer", 4, [4, 5, -6, -7, -STOP], Removed(exchanges=3, template=1)),
        ("answer", 3, [5, -6, -7, -STOP], Removed(3, 0, 1, 1, 0, no_question=True)),
        ("prompt", 2, [5, -6, -7], Removed(3, 0, 1, 1, 1, no_question=True)),
    ],
)
def test_a_conversation_spelled_out(policy, context, ids, removed):
    shorter = truncate(TALK, context, policy)
    assert shown(shorter) == ids and shorter.removed == removed


def test_longer_examples_are_dropped():
    assert truncate(SINGLE, 6, "drop") is SINGLE and truncate(SINGLE, 5, "drop") is None


def cut_prompt_of(record, template, context):
    """The prompt of a record as it is trained on, as text."""
    shorter = truncate(encode(record, BYTES, template), context)
    return BYTES.decode(shorter.ids[: shorter.last_answer])


def test_what_a_prompt_loses_in_turn():
    record = Record("ABCDEFGH", "0123456789", "x" * 200)
    template = Template("Q {instruction} A ", "Q {instruction} I {input} A ", "Begin. ")
    for context, prompt in {
        66: "Begin. Q ABCDEFGH I 0123456789 A ",
        64: "Begin. Q ABCDEFGH I 012346789 A ",
        58: "Begin. Q ABCDEFGH I 012789 A ",
        46: "Begin. Q ABCDEFGH I  A ",
        40: "Be. Q ABCDEFGH I  A ",  # the instruction has less than half of the room of 20
        30: "Q ABCDFGH I  A ",
        20: "Q AH I  A ",
        8: "  A ",
        1: " ",
    }.items():
        assert cut_prompt_of(record, template, context) == prompt


def test_a_long_instruction_is_cut_before_the_opening():
    record, template = Record("0123456789" * 9, "", "x" * 200), Template("Q {instruction} A")
    assert cut_prompt_of(record, template, 40) == "Q 0123456723456789 A"
    begun = dataclasses.replace(template, opening="Begin. ")
    assert cut_prompt_of(record, begun, 48) == "Begin. Q 0123456456789 A"
    brief = record._replace(system="Be as brief as you can.")
    assert cut_prompt_of(brief, template, 48) == "Be an.\n\nQ 012345456789 A"


def test_the_oldest_exchanges_are_left_out_whole():
    exchanges = (Exchange("One?", "First."), Exchange("Two?", "Second."), Exchange("Three?", "3."))
    record = Record("Four?", "", "x" * 200, "Be kind.", exchanges)
    template = TEMPLATES["chat"]
    whole = encode(record, BYTES, template)
    for count in range(4):
        fewer = encode(record._replace(earlier=exchanges[count:]), BYTES, template)
        shorter = truncate(whole, 2 * fewer.last_answer)
        assert shorter.ids[: shorter.last_answer] == fewer.ids[: fewer.last_answer]
        assert shorter.removed.exchanges == len(whole.ids) - len(fewer.ids)
        assert shorter.is_answer[: shorter.last_answer] == fewer.is_answer[: fewer.last_answer]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
SENTENCES = TEXTS.filter(str.strip)
RECORDS_OF_ALL_KINDS = st.builds(
    Record,
    instruction=SENTENCES,
    input=TEXTS,
    output=SENTENCES,
    system=TEXTS,
    earlier=st.lists(st.builds(Exchange, SENTENCES, SENTENCES), max_size=3).map(tuple),
)


@given(
    RECORDS_OF_ALL_KINDS,
    st.sampled_from(list(TEMPLATES.values())),
    st.integers(1, 200),
    st.sampled_from(get_args(Policy)),
    st.sampled_from([BYTES, small_tokenizer(MERGES)]),
)
@example(Record("0", "", "0", system="0"), TEMPLATES["raw"], 1, "answer", BYTES)
@quick
def test_whatever_is_cut_the_rules_hold(record, template, context, policy, tokenizer):
    whole = encode(record, tokenizer, template)
    shorter, prompt, answer = truncate(whole, context, policy), whole.last_answer, 0
    if len(whole.ids) <= context + 1:
        assert shorter is whole and fit_prompt(whole, context, policy) == whole.ids[:prompt]
        return
    if policy == "drop":
        assert shorter is None
        assert fit_prompt(whole, context, policy) == fit_prompt(whole, context, "answer")
        return
    before = shorter.last_answer
    answer, fits = len(whole.ids) - prompt, len(shorter.ids) - before
    room = max(1, context // 2 if policy == "answer" else 1, context + 1 - answer)
    assert before == prompt if prompt <= room else before <= room
    # only the last answer's end is cut, and then there is no end-of-text
    assert shorter.ids[before:] == whole.ids[prompt : prompt + fits]
    assert fits == min(answer, context + 1 - before) >= 1
    assert shorter.ids[:before] == fit_prompt(whole, context, policy)
    # the rest is what it was, token by token, and all that is missing is counted
    rest = iter(zip(whole.ids, whole.is_answer, strict=True))
    pairs = zip(shorter.ids, shorter.is_answer, strict=True)
    assert all(any(pair == other for other in rest) for pair in list(pairs)[1:])
    removed = shorter.removed
    assert removed.answer == answer - fits and not shorter.is_answer[0]
    assert removed.exchanges + removed.prompt + removed.answer == len(whole.ids) - len(shorter.ids)
    # in this order
    lengths = {span.field: span.stop - span.start for span in whole.spans}
    if removed.prompt:
        assert True not in shorter.is_answer[:before] and before == room
    if removed.instruction or removed.template:
        assert removed.input == lengths.get("input", 0)
    if removed.no_question:
        assert removed.instruction == lengths["instruction"]
        assert removed.template >= lengths["opening"]


def test_an_answer_that_is_not_known_yet_has_room():
    whole = encode(Record("0123456789" * 9, "", ""), BYTES, TEMPLATES["raw"])
    for context, new_tokens, prompt in ((200, 64, 90), (100, 11, 90), (100, 64, 76), (100, 20, 81)):
        assert len(fit_prompt(whole, context, new_tokens=new_tokens)) == prompt


def test_cuts_are_counted_by_kind_and_by_token():
    wholes = [SINGLE, TALK, Example([1, 2, STOP], [False, True, True])]
    assert truncate_all(wholes, 8)[1] == Cuts(3)
    fitting, cuts = truncate_all(wholes, 3)
    assert len(fitting) == 3 and cuts == Cuts(
        examples=3,
        answers=1,
        prompts=2,
        instructions=1,
        no_question=1,
        conversations=1,
        answer_tokens=2,
        prompt_tokens=1 + 2,
        exchange_tokens=3,
    )
    assert cuts.tokens == 8 and cuts.is_any and not Cuts(3).is_any
    fitting, cuts = truncate_all(wholes, 4, "drop")
    assert fitting == wholes[2:] and cuts == Cuts(3, dropped=2, dropped_tokens=7 + 9)
    assert cuts + Cuts(1, 1) == Cuts(4, 1, dropped=2, dropped_tokens=16)


@given(st.integers(2, 60), st.integers(1, 20), st.sampled_from(get_args(Policy)))
def test_a_text_is_divided_and_every_token_is_predicted_once(n, context, policy):
    text = Example(list(range(n)), [False] + [True] * (n - 1), is_text=True)
    fitting, cuts = truncate_all([text], context, policy)
    assert [i for e in fitting for i, part in zip(e.ids, e.is_answer, strict=True) if part] == list(
        range(1, n)
    )
    assert all(2 <= len(e.ids) <= context + 1 and not e.is_answer[0] for e in fitting)
    assert cuts == Cuts(1)


def test_a_data_set_that_is_dropped_whole_is_refused():
    wholes = [encode(record, BYTES) for record in RECORDS]
    dropped = truncate_all(wholes, 20, "drop")
    with pytest.raises(
        UserError, match="every example is longer than the context of 20, so all 6 are"
    ):
        require_examples(*dropped, 20)
    require_examples(*truncate_all(wholes, 20), 20)
    require_examples(*truncate_all([], 20, "drop"), 20)


@pytest.mark.parametrize(("policy", "ids"), [("answer", [1, 2]), ("drop", [1, 2]), ("prompt", [2])])
def test_a_prompt_that_is_answered_is_cut_as_the_one_that_is_trained(policy, ids):
    assert fit_prompt(SINGLE, 5, policy) == ids
    assert fit_prompt(SINGLE, 5) == [1, 2]  # by default the answer is cut


def test_a_prompt_that_just_fits_stays_whole():
    talk, exact = fit_prompt(TALK, 24, new_tokens=6), fit_prompt(TALK, 11, "prompt")
    assert talk == exact == TALK.ids[:6]


def test_in_the_least_room_the_instruction_keeps_a_token():
    record = Record("ABCD", "", "x" * 50)
    texts = {2: "A", 4: "BA", 6: "B.A"}
    for context, text in texts.items():
        assert cut_prompt_of(record, Template("{instruction}", opening="Begin."), context) == text


def test_the_default_cuts_the_answer():
    (shorter,) = fit_to_context(SINGLE, 4)
    (same,), cuts = truncate_all([SINGLE], 4)
    assert shown(shorter) == shown(same) == shown(truncate(SINGLE, 4)) == [1, 2, -4, -5, -6]
    assert vars(cuts) == vars(Cuts(examples=1, answers=1, answer_tokens=2))


def test_each_kind_of_cut_is_counted_from_its_first_token():
    one = Removed(exchanges=1, input=1, instruction=1, template=1, answer=1)
    talks = [TALK._replace(removed=one), SINGLE._replace(removed=Removed(answer=1))]
    _, cuts = truncate_all(talks, 20)
    assert vars(cuts) == vars(
        Cuts(
            examples=2,
            answers=2,
            prompts=1,
            inputs=1,
            instructions=1,
            conversations=1,
            answer_tokens=2,
            prompt_tokens=3,
            exchange_tokens=1,
        )
    )


@pytest.mark.parametrize("name", ["answers", "prompts", "conversations", "dropped"])
def test_any_kind_of_cut_is_one(name):
    assert Cuts(**{name: 1}).is_any and not Cuts(examples=3).is_any
    assert (Cuts() + Cuts(**{name: 2})) == Cuts(**{name: 2})


def test_pieces_of_a_text_are_texts():
    pieces = split_text(Example([STOP, 1, 2, 3], [False, True, True, True], is_text=True), 2)
    assert [(shown(piece), piece.is_text) for piece in pieces] == [
        ([STOP, -1, -2], True),
        ([2, -3], True),
    ]


def test_the_policies_are_those_that_the_help_names():
    assert get_args(Policy) == ("answer", "prompt", "drop")


def test_that_nothing_is_left_is_told_with_what_to_do():
    with pytest.raises(UserError) as refused:
        require_examples([], Cuts(examples=3, dropped=3), 7)
    assert str(refused.value) == (
        "every example is longer than the context of 7, so all 3 are dropped: use a larger "
        "context, or cut them instead (truncate: answer or prompt)"
    )
