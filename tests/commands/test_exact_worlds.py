"""Commands in an exact world: they reach the optimum that summing over all answers gives.

The policy is a GPT-2 in a folder, whose tokens are bytes; all but a, b and end-of-text are nearly
impossible.  For PPO and GRPO an answer has at most 3 tokens, so there are 15, and one of them is
right.  The pairs of DPO are about the 14 texts of 1 to 3 letters, of which one is preferred.
"""

import json
from itertools import product

import numpy as np
import pytest

from minigpt2.alignment.kl_objective import objective, optimum
from minigpt2.alignment.log_probs import Answer, batch_of_answers, log_probs, sums_by_answer
from minigpt2.data.examples import encode
from minigpt2.data.records import Record
from minigpt2.data.template_files import open_template
from minigpt2.inference.model import Model, open_model, save_model
from minigpt2.model.config import GPT2Config
from minigpt2.model.parameters import Parameters, tensor_shapes
from tests.alignment.exact_world import ANSWERS, END
from tests.data.small import small_tokenizer
from tests.model.cases import drawn

BETA, RIGHT, PREFERRED = 0.3, "b", "bb"
TOKENIZER, RAW = small_tokenizer(), open_template("raw")
TOKENS = [*TOKENIZER.encode("a"), *TOKENIZER.encode("b"), TOKENIZER.end_of_text]  # 0, 1 and END
CONFIG = GPT2Config(TOKENIZER.n_vocab, n_positions=8, n_embd=8, n_layer=1, n_head=2)
TEXTS = ["".join(letters) for n in (1, 2, 3) for letters in product("ab", repeat=n)]
OPTIONS = ("--template", "raw", "--max-new-tokens", 3, "--samples", 0, "--beta", BETA)
OPTIONS = (*OPTIONS, "--warmup", 0, "--schedule", "linear", "--device", "cpu")
OPTIONS = (*OPTIONS, "--log-every", 1000)
CHECKED = ("--check", "exact", "--cut-penalty", 0, "--max-kl", 0)  # of rewards by a program


@pytest.fixture
def world(run, tmp_path):
    """Run a command on the one question of the world."""
    rng = np.random.default_rng(0)
    shapes = tensor_shapes(CONFIG).items()
    flat = np.concatenate([drawn(name, shape, rng).ravel() for name, shape in shapes])
    parameters = Parameters(CONFIG, flat.astype(np.float32))
    parameters["ln_f.weight"][0], parameters["ln_f.bias"][0] = 0, 10  # h begins with 10
    parameters["wte.weight"][:, 0] = -3
    parameters["wte.weight"][TOKENS, 0] = 0
    save_model(tmp_path / "start", Model(parameters, TOKENIZER, RAW))
    (tmp_path / "one.json").write_text(json.dumps([{"instruction": "Q", "output": RIGHT}]))
    return lambda name, *options: run(
        name, "one.json", "--model", "start", "--out", "end", *OPTIONS, *options
    )


def log_policy(folder):
    """ln π of the 15 answers."""
    prompt = encode(Record("Q", "", ""), TOKENIZER, RAW)
    ids = prompt.ids[: prompt.last_answer]
    answers = [Answer(ids, [TOKENS[token] for token in answer]) for answer in ANSWERS]
    batch = batch_of_answers(answers)
    parameters = open_model(str(folder)).parameters
    wide = parameters.like(parameters.flat.astype(np.float64))
    return sums_by_answer(log_probs(wide, batch), batch)


REWARDS = np.array([float(answer == (1, END)) for answer in ANSWERS])


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        ("grpo", "--prompts", 1, "--answers", 128, "--steps", 200, "--learning-rate", 0.03),
        ("ppo", "--prompts", 128, "--steps", 400, "--learning-rate", 0.01, "--gae-lambda", 1),
    ],
    ids=["grpo", "ppo"],
)
def test_the_optimum_is_reached(world, tmp_path, options):
    name, *others = options
    if name == "ppo":
        others += ["--epochs", 2, "--minibatches", 2, "--value-clip", 10]
    outcome = world(name, *CHECKED, *others)
    assert outcome.code == 0, outcome.err
    before, after = log_policy(tmp_path / "start"), log_policy(tmp_path / "end")
    assert np.exp(before).sum() > 1 - 1e-6 and np.exp(after).sum() > 1 - 1e-3
    best_log_p, best = optimum(before, REWARDS, BETA)
    value = objective(after, before, REWARDS, BETA)
    assert objective(before, before, REWARDS, BETA) < 0.5 * best
    assert value > 0.99 * best
    assert abs(np.exp(after) - np.exp(best_log_p)).sum() / 2 < 0.02


def log_policy_of_texts(folder):
    """ln π of each text of 1 to 3 letters and its end-of-text, were there no other answers."""
    prompt = encode(Record("Q", "", ""), TOKENIZER, RAW)
    ids = prompt.ids[: prompt.last_answer]
    end = TOKENIZER.end_of_text
    batch = batch_of_answers([Answer(ids, [*TOKENIZER.encode(text), end]) for text in TEXTS])
    parameters = open_model(str(folder)).parameters
    wide = parameters.like(parameters.flat.astype(np.float64))
    log_p = sums_by_answer(log_probs(wide, batch), batch)
    return log_p - np.log(np.exp(log_p).sum())


def preferred():
    """Pairs of one answer and each other, preferred 3 times of 4: σ(ln 3) = 3/4."""
    for text in TEXTS:
        if text == PREFERRED:
            continue
        for chosen, rejected in [(PREFERRED, text)] * 3 + [(text, PREFERRED)]:
            yield {"instruction": "Q", "chosen": chosen, "rejected": rejected}


@pytest.mark.long
def test_dpo_reaches_the_optimum_of_the_reward_that_its_pairs_follow(world, tmp_path):
    pairs = list(preferred())
    (tmp_path / "one.json").write_text(json.dumps(pairs))
    options = ("--epochs", 400, "--batch-size", len(pairs), "--learning-rate", 0.01)
    outcome = world("dpo", *options, "--validation", 0)
    assert outcome.code == 0, outcome.err
    before, after = (log_policy_of_texts(tmp_path / name) for name in ("start", "end"))
    rewards = np.log(3) * np.array([text == PREFERRED for text in TEXTS])
    best_log_p, best = optimum(before, rewards, BETA)
    assert objective(before, before, rewards, BETA) < 0.5 * best
    assert objective(after, before, rewards, BETA) > 0.99 * best
    assert abs(np.exp(after) - np.exp(best_log_p)).sum() / 2 < 0.02
    margins = BETA * (after - before)
    differences = margins[TEXTS.index(PREFERRED)] - np.delete(margins, TEXTS.index(PREFERRED))
    np.testing.assert_allclose(differences, np.log(3), atol=0.02)
