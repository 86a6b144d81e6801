"""Runs of GRPO and PPO in the exact world: a GPT-2 of one block, 15 answers to one prompt."""

import numpy as np

from minigpt2.alignment.kl_objective import objective, optimum
from minigpt2.alignment.on_policy import Phases
from minigpt2.model.parameters import Parameters
from minigpt2.ops.adamw import AdamW
from minigpt2.training.config import TrainingConfig
from minigpt2.training.run import take_steps
from minigpt2.training.state import new_state
from tests.alignment.exact_world import (
    ANSWERS,
    CONFIG,
    END,
    LONGEST,
    MODEL,
    PROMPT,
    REWARDS,
    sums,
)

SCORES = dict(zip(ANSWERS, REWARDS, strict=True))
LOG_REFERENCE = sums(MODEL.log_p())  # (15,)


def start(dtype=np.float64):
    """The policy that a run begins with, which is its reference, too."""
    return Parameters(CONFIG, MODEL.start.astype(dtype))


def fresh_state(dtype=np.float64, seed=0):
    """The state of a run that begins."""
    return new_state(start(dtype), seed=seed)


def score(answers, prompts):
    """The reward of each answer, which nobody but this world knows."""
    return [SCORES[tuple(answer.ids)] for answer in answers]


def phases(state, samples=16, prompts=(PROMPT,), per_phase=1, temperature=1.0, **options):
    """Phases over the one prompt, or others."""
    return Phases(
        prompts,
        state,
        prompts_per_phase=per_phase,
        samples=samples,
        stop=END,
        max_new_tokens=LONGEST,
        temperature=temperature,
        **options,
    )


def config(steps, learning_rate=0.01):
    """Steps of a rate that falls, without decay."""
    adamw = AdamW(weight_decay=0.0, eps=1e-8, clip=1.0)
    return TrainingConfig(steps, learning_rate, schedule="linear", adamw=adamw)


def steps_of(state, data, objective_of, steps, **options):
    """The results of a run's steps."""
    return list(take_steps(state, data, objective_of, config(steps, **options)))


def log_policy(flat):
    """ln π (15,) of a policy's answers."""
    return sums(MODEL.log_p(flat.astype(np.float64)))


def judged(state, beta):
    """J of a policy as a share of J*, both less the J of the reference, and the total variation."""
    best_log_p, best = optimum(LOG_REFERENCE, REWARDS, beta)
    begin = objective(LOG_REFERENCE, LOG_REFERENCE, REWARDS, beta)
    log_p = log_policy(state.parameters.flat)
    value = objective(log_p, LOG_REFERENCE, REWARDS, beta)
    variation = abs(np.exp(log_p) - np.exp(best_log_p)).sum() / 2
    return (value - begin) / (best - begin), variation
