"""PPO: a policy, a value function and a reward, and several steps on each rollout.

Why
    An answer is costly to draw and cheap to learn from, so a rollout is used for several
    steps.  After the first of them the policy is no longer the one that drew the answers.
    The ratio (40.5) accounts for that, and beyond the clip (40.8) a token gets no further push
    (proximal policy optimisation; Schulman et al. 2017; with language models, Ziegler et al.
    2019, Ouyang et al. 2022).

A phase
    1. The policy answers prompts (chapter 39); ln π of each token is recorded as ln π_old.
    2. Each answer gets a score, less a penalty if it was cut (41.3).
    3. The price of leaving the reference is paid token by token, in the reward (41.1).
    4. The value function says what it expects before each token: v_old.
    5. From rewards and values follow the advantages (41.6), and the returns (41.7), towards which
       the values learn.  Then the advantages of all tokens are whitened (41.8); padding
       does not exist here, so none can count.
    6. For each of E epochs the answers are cut at random into B minibatches, and each of them is
       one step of AdamW.  All of 1 to 5 stay as they are.

A step, on the Z tokens of its minibatch, with u = 1/Z in (40.7) and in (42.2)
    ℒ = ℒ_policy + c_v ℒ_value                                     (43.1)
    so the triples have the weights w of (40.9), and the values have
    dvₙ = c_v times the dv of (42.3)                               (43.2)
    With the value head on the policy's rows, its dh adds to that of the triples; apart, it has
    blocks of its own.

    So that what the reward does not ask for is not forgotten, Ouyang et al. add the loss of
    pretraining texts to each step (PPO-ptx); here it is that of instruction tuning.  With c_x
    for how much it counts, and W = Σw of its triples, it is c_x Σ w nll / W.  All weights of a
    step are divided by Z, so
    w → c_x w Z / W                                                (43.3)

    The first step of a phase has all ratios at 1, as in GRPO, and that is checked.

Example: two tokens, the second has become half as likely as when it was drawn
    ε = 0.2 and A = (1, −1): it is clipped, at −0.8.  Values of 0 that should be 1, all with
    u = 1/2: ℒ_policy = −(1 − 0.8) / 2 and ℒ_value = ½ (1 + 1) / 2, so with c_v = 0.1
    (43.1) is −0.1 + 0.05:
    >>> old, zero = np.log([0.5, 0.4]), np.zeros(2)
    >>> columns = {"old": old, "advantage": np.array([1.0, -1.0]), "value": zero}
    >>> columns |= {"return": np.ones(2)}
    >>> log_p, shares = old + np.log([1.0, 0.5]), np.full(2, 0.5)
    >>> [round(float(x), 4) for x in losses_of(log_p, zero, columns, shares, Coefficients())]
    [-0.05, -0.1, 0.5]

    The answers 0 to 4 in two minibatches, in each epoch in another order:
    >>> rng = np.random.default_rng(0)
    >>> [[part.tolist() for part in minibatches(5, 2, rng)] for epoch in range(2)]
    [[[2, 4, 3], [0, 1]], [[4, 1, 2], [0, 3]]]

Read it
    β → ∞ pays for nothing but staying.  The entropy falls as the policy decides; it is in the
    log, and not in the loss, since a KL to the reference holds it up already.  If the share
    of clipped tokens is large, steps are too large; if the KL grows without end, β is too small.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from minigpt2.alignment.advantages import final_score, gae, returns, token_rewards, whitened
from minigpt2.alignment.completions import Completion
from minigpt2.alignment.log_probs import policy_gradients
from minigpt2.alignment.on_policy import require_first_pass
from minigpt2.alignment.policy_gradient import clipped, clipped_loss, clipped_weights, ratios
from minigpt2.alignment.value import value_gradient, value_loss
from minigpt2.alignment.value_function import policy_and_value_gradients
from minigpt2.backend import Array
from minigpt2.model.batch import Batch
from minigpt2.model.gradients import Gradients
from minigpt2.model.parameters import Parameters
from minigpt2.training.objective import Options


class Coefficients(NamedTuple):
    """The constants of a step's loss."""

    clip: float = 0.2  # ε of (40.6); cliprange in trl
    value_clip: float = 0.2  # ε of (42.1); cliprange_value in trl
    value: float = 0.1  # c_v; vf_coef in trl
    tuning: float = 0.0  # c_x


class Returns(NamedTuple):
    """How rewards become advantages."""

    penalty: float = 1.0  # c of (41.3)
    gamma: float = 1.0
    lam: float = 0.95
    whiten_rewards: bool = False


class Learnt(NamedTuple):
    """What a phase learns from an answer: a number for each token."""

    advantages: Array  # (T,)
    values: Array  # (T,)
    returns: Array  # (T,)


def learn_from(
    answers: Sequence[Completion],
    scores: Sequence[float],
    log_ratios: Sequence[Array],
    values: Sequence[Array],
    beta: float,
    options: Returns,
) -> list[Learnt]:
    """Return what is learnt from each answer: 2 to 5 of a phase.

    Log-ratios and values are those of the tokens of each answer, (T,).
    """
    rewards = [
        token_rewards(final_score(score, answer.ended, options.penalty), ratio, beta)
        for answer, score, ratio in zip(answers, scores, log_ratios, strict=True)
    ]
    cuts = np.cumsum([len(answer.ids) for answer in answers])[:-1]
    if options.whiten_rewards:
        rewards = np.split(whitened(np.concatenate(rewards), shift_mean=False), cuts)
    pairs = list(zip(rewards, values, strict=True))
    advantages = [gae(r, v, options.gamma, options.lam) for r, v in pairs]
    targets = [returns(a, v) for a, v in zip(advantages, values, strict=True)]
    white = np.split(whitened(np.concatenate(advantages)), cuts)
    return list(map(Learnt, white, values, targets))


def minibatches(answers: int, count: int, rng: np.random.Generator) -> list[Array]:
    """Cut so many answers at random into `count` minibatches; their sizes differ by one at most."""
    return np.array_split(rng.permutation(answers), count)


def losses_of(
    log_p: Array,
    v: Array,
    columns: Mapping[str, Array],
    shares: Array,
    coefficients: Coefficients,
) -> tuple[Array, Array, Array]:
    """Return ℒ of ln p, v and shares u (M,), with what it is made of: ℒ_policy and ℒ_value."""
    old, advantages = columns["old"], columns["advantage"]
    policy = clipped_loss(log_p, old, advantages, shares, coefficients.clip)
    value = value_loss(v, columns["value"], columns["return"], shares, coefficients.value_clip)
    return policy + coefficients.value * value, policy, value  # (43.1)


def is_drawn(batch: Batch) -> bool:
    """Whether a batch has answers of a rollout; else it has examples of instruction tuning."""
    return "old" in batch.columns


def for_tuning(batches: Sequence[Batch], tokens: int, coefficient: float) -> list[Batch]:
    """Return batches of instruction tuning with the weights of a step of so many tokens."""
    total = sum(batch.weights.sum() for batch in batches)  # W
    factor = coefficient * tokens / total
    return [batch._replace(weights=factor * batch.weights) for batch in batches]  # (43.3)


class PPOObjective:
    """The objective of PPO: policy, values, and instruction tuning, if there is some."""

    def __init__(self, coefficients: Coefficients, temperature: float, data: Any):
        """`data` has the `numbers` of the phase, and says whether a step is its `first`."""
        self.coefficients, self.temperature, self.data = coefficients, temperature, data

    def normaliser(self, batches: Sequence[Batch]) -> float:
        """Return the number of drawn tokens, Z."""
        return float(sum(len(batch.rows) for batch in batches if is_drawn(batch)))

    def add_gradients(
        self, parameters: Parameters, batch: Batch, gradients: Gradients, options: Options
    ) -> Array:
        """Add the gradients of a micro-batch; return ln p, followed by v if its answers were drawn.

        Raises UserError if the ratios of a phase's first step are not 1.
        """
        if not is_drawn(batch):
            w = batch.weights / options.normaliser  # (M,)
            return policy_gradients(parameters, batch, gradients, lambda log_p: w, options)
        columns, (clip, value_clip, c_v, _) = batch.columns, self.coefficients
        shares = np.full(len(batch.rows), 1 / options.normaliser)  # (M,)

        def weigh(log_p: Array) -> Array:
            if self.data.first:
                require_first_pass(log_p, columns["old"], parameters.flat.dtype)
            return clipped_weights(log_p, columns["old"], columns["advantage"], shares, clip)

        def slope(v: Array) -> Array:
            old, targets = columns["value"], columns["return"]
            return c_v * value_gradient(v, old, targets, shares, value_clip)  # (M,)  (43.2)

        both = policy_and_value_gradients(
            parameters, batch, gradients, weigh, slope, options, temperature=self.temperature
        )
        return np.concatenate(both)

    def metrics(self, batches: Sequence[Batch], results: Sequence[Array | None]) -> dict[str, Any]:
        """Return the losses, the phase's numbers, and the share of clipped tokens.

        `ratio_error` is by how much the ratios of a phase's first step are off.
        """
        z = self.normaliser(batches)
        losses, tuning, off, clips = np.zeros(3), 0.0, 0.0, 0
        for batch, result in zip(batches, results, strict=True):
            if not is_drawn(batch):
                tuning -= float(batch.weights @ result) / z
                continue
            log_p, v = np.split(np.asarray(result), 2)
            shares = np.full(len(log_p), 1 / z)  # (M,)
            losses += losses_of(log_p, v, batch.columns, shares, self.coefficients)
            rho = ratios(log_p, batch.columns["old"])  # (M,)
            off = max(off, float(abs(rho - 1).max()))
            clips += clipped(rho, batch.columns["advantage"], self.coefficients.clip).sum()
        loss, policy, value = losses.tolist()
        numbers = {"loss": loss + tuning, **self.data.numbers}
        numbers |= {"policy_loss": policy, "value_loss": value, "clipped": float(clips) / z}
        if self.coefficients.tuning:
            numbers["tuning_loss"] = tuning / self.coefficients.tuning
        return numbers | ({"ratio_error": off} if self.data.first else {})
