"""Asking: nothing that is held out was given away, and its wordings are trained."""

import itertools
import re
from collections import Counter

from minigpt2.data import almanac
from minigpt2.data.almanac import ask, tables, wordings
from tests.data.almanac.common import CHAIN, is_given_away, pairs_of, sentences


def test_every_answer_is_a_sentence_of_the_text():
    for name, section, wording in ask.fact_wordings():
        answer = wording.split("|")[2].strip()
        for sentence in sentences(answer) if answer.endswith(".") else ():
            (relation,) = set(ask.relations_asked(section, sentence))
            lines = wordings.sections("tell_facts")[f"{name}.{relation}"]
            known = {line.removeprefix("it: ") for line in lines}
            if "." not in section:
                sentence = sentence.replace(relation + "}", "value}")
            assert sentence in known, (section, sentence)


def test_line_words_are_what_questions_and_answers_put_at_the_start_of_a_line(question_set):
    words = {"", *ask.line_words()}
    for question in question_set.held_out_facts:
        answer = question["output"]
        assert question["input"] in words
        assert (answer.split()[0] if answer.endswith(".") else answer) in words


def test_unseen_pairs_are_never_trained(question_set):
    for question in question_set.train:
        for line in sentences(" ".join(question.values())):
            assert not is_given_away(line), question


def test_held_out_arithmetic_is_unseen(question_set):
    for question in question_set.held_out_arithmetic:
        operation, *_ = pairs_of(question["output"])[0]
        numbers = re.findall(r"\d+", question["instruction"] + question["input"])
        small, large = sorted(int(number) for number in numbers)
        assert almanac.is_unseen(operation, large, small), question


def test_held_out_subjects_are_never_trained(question_set, held):
    trained = {ask.question_key(question) for question in question_set.train}
    for name, section, wording in ask.fact_wordings():
        for question in ask.fact_questions(section, wording, held[name]):
            assert ask.question_key(question) not in trained


def test_no_question_comes_twice(question_set):
    everything = [ask.question_key(question) for part in question_set for question in part]
    assert len(set(everything)) == len(everything)


def test_every_held_out_wording_is_trained_often(question_set):
    trained = {ask.question_key(question) for question in question_set.train}
    for name, section, wording in ask.fact_wordings():
        if name in ask.LARGE_TABLES:
            every = ask.fact_questions(section, wording, tables.table(name))
            assert sum(ask.question_key(question) in trained for question in every) >= 25, wording


def test_held_out_facts_spread_over_tables(question_set, held):
    of_table = Counter()
    held_questions = {ask.question_key(question) for question in question_set.held_out_facts}
    for name, section, wording in ask.fact_wordings():
        every = ask.fact_questions(section, wording, sorted(held[name]))
        of_table[name] += sum(ask.question_key(question) in held_questions for question in every)
    assert sum(of_table.values()) == ask.HELD_OUT
    assert all(of_table[name] >= 5 for name in ask.LARGE_TABLES)


def test_an_answer_asked_for_in_one_word_is_one_word(question_set):
    for question in itertools.chain(*question_set):
        if "one word" in question["instruction"]:
            assert len(question["output"].split()) == 1


def test_answers_are_longer_than_questions_and_arithmetic_is_nearly_half(question_set):
    def words(question, *fields):
        return sum(len(question[field].split()) for field in fields)

    train = question_set.train
    assert len(train) >= 2400
    assert sum(words(question, "output") for question in train) > sum(
        words(question, "instruction", "input") for question in train
    )
    with_numbers = sum(bool(CHAIN.search(question["output"])) for question in train)
    assert 0.4 < with_numbers / len(train) < 0.5
