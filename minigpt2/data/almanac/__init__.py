"""The almanac: a small world of facts and sums, told for pretraining and asked for tuning.

A small model cannot know the real world, so it is given one of its own.  `documents(rng)` tells
it, in many different sentences and without a single question, for ever.  `questions(seed)` asks
about it, in Alpaca's format.  Two lists of questions are held out: what the tuned model answers
there it has not learnt from an answer.

    held_out_facts        facts that were told, about subjects that no trained question is about
    held_out_arithmetic   sums and differences that were never told and never trained
                          (`is_unseen(operation, a, b)`)

A fact is one value of one subject, such as (countries, France, capital, Paris).  Of sixteen
parts of the text seven tell facts, each equally often; seven tell arithmetic with numbers below
100; two are lists of words told twice.

    table          subjects   facts   subjects held out
    countries            83     231                  10
    elements             50     150                   6
    months               12      59                   0
    weekdays              7      14                   0
    animals              51     189                   6
    opposites            73      73                   9
    plurals              61      61                   7
    pasts                60      60                   7
    colours              50      50                   6
    shapes               10      10                   0
    professions          39      69                   5
    letters              26      51                   0
    words                30      90                   4
    numbers              29      57                   0
    all                 581    1164                  60

    train               3097 questions
    held_out_facts       150 questions
    held_out_arithmetic  150 questions

Read on in the order in which the text is made: tables (facts), wordings (templates), chance
(seeded choice), arithmetic (which pairs are unseen), tell_facts, tell_numbers, tell_words, tell,
ask.
"""

from minigpt2.data.almanac.arithmetic import is_unseen
from minigpt2.data.almanac.ask import QuestionSet, questions
from minigpt2.data.almanac.tables import Fact, facts
from minigpt2.data.almanac.tell import documents

__all__ = ["Fact", "QuestionSet", "documents", "facts", "is_unseen", "questions"]
