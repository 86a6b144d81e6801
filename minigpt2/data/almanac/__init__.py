"""The almanac: a small world of facts and sums, as text for pretraining and questions for tuning.

A small model cannot know the real world, so it gets a world of its own.  `documents(rng)` describes
this world in endless text, with many different sentences and no questions.  `questions(seed)` asks
about it, in Alpaca's format.  Two lists of questions are held out.  The tuned model has never seen
their answers as answers:

    held_out_facts        facts from the text, about subjects that no training question asks about
    held_out_arithmetic   sums and differences that neither the text nor a training question
                          contains (`is_unseen(operation, a, b)`)

A fact is one value of one subject, such as (countries, France, capital, Paris).  Of sixteen
parts of the text, seven state facts, each equally often; seven are arithmetic with numbers below
100; two are lists of words that are repeated at once.

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

Read the modules in the order in which they make the text: tables (facts), wordings (templates),
chance (seeded choice), arithmetic (which pairs are unseen), tell_facts, tell_numbers, tell_words,
tell, ask.
"""

from minigpt2.data.almanac.arithmetic import is_unseen
from minigpt2.data.almanac.ask import QuestionSet, questions
from minigpt2.data.almanac.tables import Fact, facts
from minigpt2.data.almanac.tell import documents

__all__ = ["Fact", "QuestionSet", "documents", "facts", "is_unseen", "questions"]
