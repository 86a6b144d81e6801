"""Losses of policies on the same numbers: GRPO's in trl, and PPO's, written anew in torch.

Each loss is a function of the ln p of an answer's tokens (and PPO's of values, too), in float64, so
that autograd's gradient is compared to the last digits.  trl's loss is a method that takes what it
needs from `self`; here that is a stand-in with the few attributes that it reads.
"""

from collections import defaultdict
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from trl import GRPOTrainer

from minigpt2.alignment.advantages import gae, returns, token_rewards, whitened
from minigpt2.alignment.kl_objective import estimates, slopes
from minigpt2.alignment.policy_gradient import (
    clipped_loss,
    clipped_weights,
    normaliser,
    token_shares,
)
from minigpt2.alignment.value import value_gradient, value_loss

CLIP, LONGEST = 0.2, 9
LENGTHS = np.array([4, 9, 1, 6, 9, 2])
MASK = np.arange(LONGEST) < LENGTHS[:, None]  # (6, 9) where a token is
# trl's names, ours, and the number that a constant normaliser divides by.
GRPO = {"grpo": "answer", "bnpo": "tokens", "dapo": "tokens", "dr_grpo": "constant"}


class Numbers(NamedTuple):
    """Numbers of padded tokens (6, 9), and one for each answer (6,)."""

    log_p: np.ndarray
    old: np.ndarray
    reference: np.ndarray
    values: np.ndarray
    old_values: np.ndarray
    scores: np.ndarray


def numbers(seed=0):
    """Random numbers, of which a good part is clipped, on either side."""
    rng = np.random.default_rng(seed)
    log_p, moved, apart, values = rng.standard_normal((4, *MASK.shape))
    log_p = -abs(log_p) - 0.1
    old, reference = log_p - 0.3 * moved, log_p - 0.5 * apart
    old_values = values - 0.3 * rng.standard_normal(MASK.shape)
    return Numbers(log_p, old, reference, values, old_values, rng.standard_normal(len(MASK)))


# GRPO.


def their_grpo(tokens, loss_type, beta, items):
    """trl's loss, and its gradient by the ln p of the tokens that are not padding."""
    log_p = torch.tensor(tokens.log_p, requires_grad=True)
    mask = torch.tensor(MASK, dtype=torch.float64)
    accelerator = SimpleNamespace(
        num_processes=1,
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction: x,
        sync_gradients=True,
    )
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (log_p, torch.zeros_like(log_p), None),
        _metrics=defaultdict(lambda: defaultdict(list)),
        accelerator=accelerator,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        beta=beta,
        loss_type=loss_type,
        epsilon_low=CLIP,
        epsilon_high=CLIP,
        importance_sampling_level="token",
        max_completion_length=LONGEST,
        current_gradient_accumulation_steps=1,
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_vllm=False,
        _entropy_bonus_enabled=False,
    )
    inputs = {
        "prompt_ids": torch.zeros(len(MASK), 1, dtype=torch.long),
        "prompt_mask": torch.ones(len(MASK), 1, dtype=torch.long),
        "completion_ids": torch.zeros(MASK.shape, dtype=torch.long),
        "completion_mask": mask,
        "advantages": torch.tensor(tokens.scores),
        "old_per_token_logps": torch.tensor(tokens.old),
        "ref_per_token_logps": torch.tensor(tokens.reference),
        "num_items_in_batch": torch.tensor(float(items)),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    return loss.item(), log_p.grad.numpy()[MASK]


def our_grpo(tokens, loss_type, beta, items):
    """The same of this project, on the tokens in a row; k3 of each token is added to the loss."""
    answers = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    kind = GRPO[loss_type]
    z = items if loss_type == "dapo" else normaliser(kind, answers, LONGEST)
    shares = token_shares(kind, answers) / z
    log_p, advantages = tokens.log_p[MASK], tokens.scores[answers]
    arguments = log_p, tokens.old[MASK], advantages, shares, CLIP
    log_ratios = log_p - tokens.reference[MASK]
    loss = clipped_loss(*arguments) + beta * (shares * estimates(log_ratios)[2]).sum()
    return loss, -clipped_weights(*arguments) + beta * shares * slopes(log_ratios)[2]


# PPO, as Ziegler et al. 2019 trained: answers of one length, the mean over all tokens.

BETA, GAMMA, LAM, VALUE_COEFFICIENT = 0.15, 0.97, 0.95, 0.1


def their_ppo(tokens, whiten_rewards):
    """The loss and its gradients by ln p and by the values, by autograd."""
    numbers_of = {name: torch.tensor(x) for name, x in tokens._asdict().items()}
    log_p = numbers_of["log_p"].requires_grad_()
    values = numbers_of["values"].requires_grad_()
    old, before = numbers_of["old"], numbers_of["old_values"]

    def white(x, shift_mean=True):
        y = (x - x.mean()) * torch.rsqrt(x.var(correction=0) + 1e-8)
        return y if shift_mean else y + x.mean()

    rewards = -BETA * (old - numbers_of["reference"])
    rewards[:, -1] += numbers_of["scores"]
    rewards = white(rewards, shift_mean=False) if whiten_rewards else rewards
    columns, running, following = [], 0.0, 0.0
    for t in reversed(range(LONGEST)):
        running = rewards[:, t] + GAMMA * following - before[:, t] + GAMMA * LAM * running
        following = before[:, t]
        columns.append(running)
    advantages = torch.stack(columns[::-1], 1)
    targets = advantages + before
    advantages = white(advantages)
    near = torch.clamp(values, min=before - CLIP, max=before + CLIP)
    value = 0.5 * torch.maximum((values - targets) ** 2, (near - targets) ** 2).mean()
    ratio = torch.exp(log_p - old)
    bounded = ratio.clamp(1 - CLIP, 1 + CLIP)
    policy = torch.maximum(-advantages * ratio, -advantages * bounded).mean()
    loss = policy + VALUE_COEFFICIENT * value
    loss.backward()
    return loss.item(), log_p.grad.numpy().ravel(), values.grad.numpy().ravel()


def our_ppo(tokens, whiten_rewards):
    """The same of this project."""
    log_ratios = tokens.old - tokens.reference
    rewards = np.stack(
        [token_rewards(s, x, BETA) for s, x in zip(tokens.scores, log_ratios, strict=True)]
    )
    if whiten_rewards:
        rewards = whitened(rewards.ravel(), shift_mean=False).reshape(rewards.shape)
    pairs = zip(rewards, tokens.old_values, strict=True)
    advantages = np.concatenate([gae(r, v, GAMMA, LAM) for r, v in pairs])
    targets = returns(advantages, tokens.old_values.ravel())
    answers = np.repeat(np.arange(len(MASK)), LONGEST)
    shares = token_shares("tokens", answers) / normaliser("tokens", answers)
    arguments = tokens.log_p.ravel(), tokens.old.ravel(), whitened(advantages), shares, CLIP
    value = tokens.values.ravel(), tokens.old_values.ravel(), targets, VALUE_COEFFICIENT * shares
    loss = clipped_loss(*arguments) + value_loss(*value, CLIP)
    return loss, -clipped_weights(*arguments), value_gradient(*value, CLIP)


# What is compared.


def comparisons():
    """(name, quantity, difference) of every loss and every gradient."""
    tokens = numbers()
    for loss_type in GRPO:
        for beta in (0.0, 0.04):
            # The step of dapo has more tokens than this micro-batch.
            arguments = tokens, loss_type, beta, 2.5 * LENGTHS.sum()
            name = f"trl's {loss_type}, β = {beta:g}"
            yield from differences(name, our_grpo(*arguments), their_grpo(*arguments))
    for whiten_rewards in (False, True):
        name = f"PPO, rewards {'whitened' if whiten_rewards else 'as they are'}"
        yield from differences(
            name, our_ppo(tokens, whiten_rewards), their_ppo(tokens, whiten_rewards)
        )


def differences(name, ours, theirs):
    """The difference of the losses, and the largest of the gradients'."""
    yield name, "policy loss", abs(ours[0] - theirs[0])
    pairs = zip(ours[1:], theirs[1:], strict=True)
    yield name, "policy gradient", max(abs(one - other).max() for one, other in pairs)
