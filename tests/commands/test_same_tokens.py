"""What `show` prints, what `stats` and `plan` count and what `train` supervises are the same."""

import json
import re
from collections import Counter
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.commands.dataset import Dataset
from minigpt2.commands.show import entry
from minigpt2.data.batches import EpochBatches, split, training_set
from minigpt2.data.loss_weights import LossWeights
from minigpt2.data.records import Exchange, Record
from minigpt2.data.statistics import count_rows
from minigpt2.data.template import TEMPLATES, Template
from minigpt2.data.truncation import Policy, fit_to_context
from minigpt2.planning.batch_profile import RunShape, profile
from tests.data.small import MERGES, small_tokenizer

WORDS = [
    "hello",
    " world",
    "\n",
    "\r\n",
    "\t ",
    "<|endoftext|>",
    "{input}",
    "#",
    "\u200b",
    "é",
    "  ",
]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=9).map("".join)
SENTENCES = TEXTS.filter(str.strip)
QUESTIONS = st.builds(
    Record,
    instruction=SENTENCES,
    input=TEXTS,
    output=SENTENCES,
    system=TEXTS,
    earlier=st.lists(st.builds(Exchange, SENTENCES, SENTENCES, st.booleans()), max_size=2).map(
        tuple
    ),
)
PLAIN = st.builds(Record, st.just(""), st.just(""), SENTENCES)
OWN = st.builds(
    Template,
    question=st.builds("{}{{instruction}}{}".format, TEXTS, TEXTS),
    opening=TEXTS,
    system=st.builds("{}{{system}}".format, TEXTS),
)
TOKENIZERS = [small_tokenizer(), small_tokenizer(MERGES)]


@st.composite
def datasets(draw):
    """A data set of any records, template, context and policy."""
    return Dataset(
        name="data",
        format="Alpaca",
        records=draw(st.lists(st.one_of(QUESTIONS, QUESTIONS, PLAIN), min_size=1, max_size=6)),
        numbers=range(6),
        tokenizer=draw(st.sampled_from(TOKENIZERS)),
        template=draw(st.one_of(st.sampled_from(list(TEMPLATES.values())), OWN)),
        context=draw(st.integers(1, 150)),
        truncate=draw(st.sampled_from(get_args(Policy))),
    )


WEIGHTS = st.builds(LossWeights, st.sampled_from([0.0, 0.5]), st.booleans())


def shown_targets(dataset, weights):
    """The supervised tokens of each entry as `show` prints them, with their weights."""
    targets = []
    for number in range(len(dataset.records)):
        shown = entry(dataset, number, weights)
        tokens = shown.tokens or []
        targets.append([(token.id, token.weight) for token in tokens if token.weight])
    return targets


def sums(pairs):
    """The sum of the weights of each token."""
    total = Counter()
    for token, weight in pairs:
        total[int(token)] += round(float(weight) * 1e6)
    return {token: round(weight, -2) for token, weight in total.items()}


@given(
    datasets(),
    WEIGHTS,
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from([0.0, 0.3, 0.9]),
    st.integers(0, 3),
)
@settings(deadline=None, max_examples=100)
def test_show_stats_plan_and_train_have_the_same_tokens(dataset, weights, sizes, share, seed):
    batch_size, micro_batch = sizes
    examples = dataset.encode(dataset.records)
    options = {"validation": share, "seed": seed}
    trained = training_set(examples, dataset.context, dataset.truncate, **options)
    data = EpochBatches(
        trained.training,
        batch_size=batch_size,
        micro_batch=micro_batch,
        seed=seed,
        loss_weights=weights,
    )
    batches = [batch for k in range(data.steps) for batch in data.at(0, k * batch_size).batches]

    # show, entry by entry, and train: texts are split, and show has their first piece
    shown = shown_targets(dataset, weights)
    to_train_on, held_out = split(range(len(dataset.records)), share, seed)
    expected = []
    for number in to_train_on:
        pieces = fit_to_context(examples[number], dataset.context, dataset.truncate)
        expected += shown[number]
        for piece in pieces[1:]:
            expected += [(i, w) for i, w in zip(piece.ids, weights.of(piece), strict=True) if w]
    supervised = [pair for b in batches for pair in zip(b.targets, b.weights, strict=True)]
    assert sums(supervised) == sums(expected)

    # stats
    counts = trained.counts()
    fitting = trained.training + trained.validation
    assert counts["prompt_tokens"] + counts["answer_tokens"] == sum(len(e.ids) for e in fitting)
    answer_tokens = sum(int((b.answers >= 0).sum()) for b in batches)
    assert answer_tokens == sum(sum(e.is_answer) for e in trained.training)
    assert count_rows(data.epoch()).forest == sum(len(b.ids) for b in batches)

    # plan
    if trained.training:
        shape = RunShape(dataset.context, batch_size, micro_batch, truncate=dataset.truncate)
        planned = profile(shape._replace(loss_weights=weights, **options), examples)
        assert planned.steps == data.steps
        assert [rows for rows, _ in planned.micro_batches] == [len(b.ids) for b in batches]
        supervised = [int((b.weights > 0).sum()) for b in batches]
        assert [count for _, count in planned.micro_batches] == supervised
        assert all(supervised) and len(held_out) < len(dataset.records)


@pytest.mark.parametrize("policy", get_args(Policy))
def test_the_commands_print_the_same_numbers(run, little_model, tmp_path, policy):
    entries = [{"question": "How many? " * n, "answer": "So many. " * n} for n in range(1, 13)]
    (tmp_path / "data.json").write_text(json.dumps(entries))
    options = ("--context", "48", "--batch-size", "1", "--validation", "0.3", "--seed", "1")
    options += ("--truncate", policy, "--model", little_model)
    summary = run("train", "data.json", "--out", "run", "--epochs", "1", "--samples", "0", *options)
    assert summary.code == 0, summary.err
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    steps = [line for line in log if "rows" in line]
    trained = json.loads((tmp_path / "run/summary.json").read_text())["data"]
    counts = "{training} examples for training, {validation} for validation; {prompt_tokens} prompt"
    stats = run("stats", "data.json", *options).out
    assert (
        counts.format(**trained) in stats and f"{trained['answer_tokens']} answer tokens" in stats
    )
    assert f"an epoch has {len(steps)} steps" in stats
    assert f" the forest {sum(step['rows'] for step in steps)} " in re.sub(" +", " ", stats)
    plan = run("plan", *options, "--data", "data.json", "--time", "false").out
    assert f"an epoch has {len(steps)} steps; a micro-batch has at most " in plan
    assert f"at most {max(step['rows'] for step in steps)} rows" in plan
