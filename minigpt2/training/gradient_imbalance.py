"""Imbalance: where the gradient comes from, prompt or answer, and from which examples.

Definition, with gₙ the gradient of nllₙ with respect to all parameters, over the prompt tokens Q
and the answer tokens A of all examples
    G_Q = Σ gₙ for n in Q,  G_A = Σ gₙ for n in A                  (33.1)
Whatever weight λ prompt tokens have, (26.1), the gradient of the loss follows from these two:
    G(λ) = (λ G_Q + G_A) / (λ N_Q + N_A)                           (33.2)
λ = 0 is the masked loss, λ = 1 the unmasked one.  The prompts' share of the norms, and the cosine
of the angle by which prompts turn the gradient, are
    ‖λ G_Q‖ / (‖λ G_Q‖ + ‖G_A‖)  and  cos(G(λ), G_A)               (33.3)
Three inner products give both: ‖λ G_Q + G_A‖² = λ² ‖G_Q‖² + 2 λ G_Q·G_A + ‖G_A‖².

Example: G_Q = (6, 0), G_A = (0, 4), λ = 0.5
    λ G_Q + G_A = (3, 4) has the norm 5.  Prompts have 3 / (3 + 4) of the norms, and the cosine
    of the angle between (3, 4) and (0, 4) is 4/5.
    >>> products = Products(qq=36.0, qa=0.0, aa=16.0)
    >>> products.norm(0.5), round(products.prompt_share(0.5), 3), products.alignment(0.5)
    (5.0, 0.429, 0.8)

Derivation: why a long answer counts for more
    Example i, with the answer Aᵢ of |Aᵢ| tokens, gives Gᵢ = Σ gₙ for n in Aᵢ.  Under token
    normalisation all gₙ are divided by the same N_A, so its share in the sum of norms is
    shareᵢ = ‖Gᵢ‖ / Σⱼ ‖Gⱼ‖                                        (33.4)
    Write a token's gradient as a common direction plus noise, gₙ = μ + εₙ, with independent εₙ of
    mean 0 and E‖εₙ‖² = s².  The squared norm of a sum of |A| of them has |A|² times the square of
    the common direction and |A| squares of noise; the mixed terms have mean 0:
    E‖Gᵢ‖² = |Aᵢ|² ‖μ‖² + |Aᵢ| s²                                  (33.5)
    So ‖Gᵢ‖ grows as |A|^½ where noise dominates, as |A| where the common direction does:
    the slope of ln‖Gᵢ‖ against ln|Aᵢ| lies between ½ and 1        (33.6)
    if μ and s are the same in short and in long answers.  Late tokens of an answer are often
    easier than its first ones; then μ and s fall as |A| grows, and the slope is smaller.
    Where examples count the same, (26.2), Gᵢ is divided by |Aᵢ|, and the slope falls by 1 to
    between −½ and 0, or below: a long answer then counts as much as a short one, or less.

Example: two answers of 10 and 40 tokens whose gradients have the norms 2 and 4
    Four times the length gives twice the norm: the slope is ½.  The long answer has 2/3 of the
    norms where tokens count the same, 1/3 where examples do.
    >>> norms, lengths = np.array([2.0, 4.0]), np.array([10, 40])
    >>> measured = Imbalance({}, norms, lengths, prompt_tokens=0, answer_tokens=50)
    >>> print(round(measured.slope, 3), measured.shares.round(3), measured.shares_alike.round(3))
    0.5 [0.333 0.667] [0.667 0.333]
"""

from collections.abc import Callable, Sequence
from math import nan, sqrt
from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array
from minigpt2.blas import single_threaded_blas
from minigpt2.data.batches import batch_of
from minigpt2.data.examples import Example
from minigpt2.data.loss_weights import LossWeights
from minigpt2.model.gpt2 import loss_and_gradients
from minigpt2.model.gradients import Gradients, gradients_of
from minigpt2.model.parameters import Parameters
from minigpt2.ops.adamw import norm_of

ALL_TOKENS = LossWeights(1.0)


class Products(NamedTuple):
    """Inner products of the gradients from prompts and from answers."""

    qq: float  # ‖G_Q‖²
    qa: float  # G_Q · G_A
    aa: float  # ‖G_A‖²

    @property
    def cosine(self) -> float:
        """The cosine of the angle between G_Q and G_A."""
        return self.qa / sqrt(self.qq * self.aa) if self.qq and self.aa else 0.0

    def norm(self, weight: float) -> float:
        """‖λ G_Q + G_A‖, the numerator of (33.2)."""
        return sqrt(max(0.0, weight**2 * self.qq + 2 * weight * self.qa + self.aa))  # (33.2)

    def prompt_share(self, weight: float) -> float:
        """The prompts' share of the norms, from 0 to 1."""
        prompt, answer = weight * sqrt(self.qq), sqrt(self.aa)
        return prompt / (prompt + answer) if prompt + answer else 0.0  # (33.3)

    def alignment(self, weight: float) -> float:
        """The cosine of the angle between G(λ) and G_A; 1 where prompts turn nothing."""
        both = self.norm(weight) * sqrt(self.aa)
        return (weight * self.qa + self.aa) / both if both else 0.0  # (33.3)


class Imbalance(NamedTuple):
    """The gradients of a sample of examples, measured."""

    parts: dict[str, Products]  # by part of the model: "all", "wte", "wpe", "h.0", ..., "ln_f"
    norms: Array  # (N,) ‖Gᵢ‖ of each example's answer
    lengths: Array  # (N,) |Aᵢ|
    prompt_tokens: int  # N_Q
    answer_tokens: int  # N_A

    @property
    def shares(self) -> Array:
        """Each example's share under token normalisation, (N,)."""
        return self.norms / self.norms.sum()  # (33.4)

    @property
    def shares_alike(self) -> Array:
        """Each example's share where examples count the same, (N,)."""
        norms = self.norms / self.lengths
        return norms / norms.sum()  # (33.4)

    @property
    def slope(self) -> float:
        """The slope of ln‖Gᵢ‖ against ln|Aᵢ|; NaN where all answers are equally long."""
        if np.ptp(self.lengths) == 0:
            return nan
        x, y = np.log(self.lengths), np.log(np.maximum(self.norms, 1e-300))
        spread = x - x.mean()
        return float(spread @ y) / float(spread @ spread)  # (33.6)

    @property
    def fit(self) -> tuple[float, float]:
        """‖μ‖² and s² of (33.5), neither below 0, by least squares.

        ‖Gᵢ‖² / |Aᵢ| is a straight line in |Aᵢ|.
        """
        lengths, y = self.lengths, self.norms**2 / self.lengths
        x = lengths - lengths.mean()
        common = max(0.0, float(x @ y) / max(float(x @ x), 1e-300))  # (33.5)
        noise = float(y.mean() - common * lengths.mean())  # (33.5)
        if noise < 0:  # then the best line goes through 0
            return float(lengths @ y) / float(lengths @ lengths), 0.0
        return common, noise


def norms_per_token(measured: Imbalance, part: Products) -> tuple[float, float]:
    """Return ‖G_Q‖ / N_Q and ‖G_A‖ / N_A of a part of the model."""
    prompt, answer = part.qq**0.5, part.aa**0.5
    return prompt / max(1, measured.prompt_tokens), answer / measured.answer_tokens


def parts_of(parameters: Parameters) -> dict[str, list[str]]:
    """Return the names of the tensors of each part, in the order of the model."""
    parts: dict[str, list[str]] = {"all": list(parameters.views)}
    for name in ("wte", "wpe"):
        parts[name] = [f"{name}.weight"]
    for i in range(parameters.config.n_layer):
        parts[f"h.{i}"] = [name for name in parameters.views if name.startswith(f"h.{i}.")]
    parts["ln_f"] = ["ln_f.weight", "ln_f.bias"]
    return parts


def measure(
    parameters: Parameters,
    examples: Sequence[Example],
    progress: Callable[[int], None] = lambda finished: None,
) -> Imbalance:
    """Measure the gradients of examples, one by one."""
    from_prompts, from_answers, single = (gradients_of(parameters) for _ in range(3))
    norms = []
    for example in examples:
        batch = batch_of([example], ALL_TOKENS)
        in_answer = batch.answers >= 0
        single.clear()
        loss_and_gradients(parameters, batch._replace(weights=in_answer * 1.0), single)
        norms.append(norm_of(single.flat))
        from_answers.flat += single.flat  # (33.1)
        loss_and_gradients(parameters, batch._replace(weights=~in_answer * 1.0), from_prompts)
        progress(1)
    lengths = np.array([sum(e.is_answer) for e in examples])
    prompt_tokens = sum(len(e.ids) - 1 for e in examples) - int(lengths.sum())
    q, a = from_prompts, from_answers
    products = {
        part: Products(dot(names, q, q), dot(names, q, a), dot(names, a, a))
        for part, names in parts_of(parameters).items()
    }
    return Imbalance(products, np.array(norms), lengths, prompt_tokens, int(lengths.sum()))


@single_threaded_blas
def dot(names: Sequence[str], first: Gradients, second: Gradients) -> float:
    """Return the inner product of two gradients over some tensors."""
    return sum(float(np.vdot(first[name], second[name])) for name in names)
