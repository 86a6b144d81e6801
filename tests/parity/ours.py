"""This project's side: every quantity that is compared."""

import numpy as np

from minigpt2.alignment.log_probs import Answer, batch_of_answers, by_answer
from minigpt2.inference.generate import generate
from minigpt2.model.gpt2 import gpt2, loss_and_gradients
from minigpt2.model.gradients import gradients_of
from minigpt2.model.heads import SCORE, head_values, with_heads
from minigpt2.ops.adamw import AdamW
from minigpt2.training.config import TrainingConfig
from tests.stepping import take

ADAMW = AdamW(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0)
STEPS = 10
NEW = 8  # tokens of a greedy continuation


def hidden_rows(parameters, batch):
    """The rows before each block and the last ones, each (N, C), and the logits (N, V)."""
    h, saved = gpt2(parameters, batch, recompute=True)
    rows = [kept.x for kept in saved.blocks] + [h]
    return rows, h @ parameters["wte.weight"].T


def loss_and_gradients_of(parameters, batch):
    """The loss, added up in double precision, and the gradient of each parameter by name."""
    gradients = gradients_of(parameters)
    weights = batch.weights / batch.weights.sum()
    _, nll = loss_and_gradients(parameters, batch._replace(weights=weights), gradients)
    return float(nll.astype(np.float64) @ weights), gradients.views


def reward_model(parameters):
    """The parameters with a score."""
    width = parameters.config.n_embd
    weight = np.random.default_rng(4).standard_normal((1, width), np.float32) / width**0.5
    return with_heads(parameters, {f"{SCORE}.weight": weight})


def scores(parameters, case):
    """The score of each sequence, read at its last token."""
    pairs = zip(case.sequences, case.prompts, strict=True)
    answers = [Answer(s[:p], [*s[p:], 0]) for s, p in pairs]  # 0 gives the last token a row
    batch = batch_of_answers(answers)
    return [v[-1] for v in by_answer(head_values(parameters, batch, SCORE), batch)]


def greedy(parameters, case):
    """The tokens that follow the first tokens of each sequence, the likeliest each time."""
    prompts = [list(sequence[: case.start(NEW)]) for sequence in case.sequences]
    return generate(parameters, prompts, stop=-1, max_new_tokens=NEW)


def adamw_losses(parameters, batch, rate):
    """The losses of ten steps on the same batch; changes the parameters."""
    config = TrainingConfig(STEPS, rate, 0, "linear", ADAMW)
    steps = take(parameters, iter([[batch]] * STEPS), config)
    return [step.loss for step in steps]
