"""Imbalance: where the gradient comes from, prompt or answer, and from which examples.

Definition, with gₙ the gradient of nllₙ with respect to all parameters, over the prompt tokens Q
and the answer tokens A of all examples
    G_Q = Σ gₙ for n in Q,  G_A = Σ gₙ for n in A                  (32.1)
Whatever weight λ prompt tokens have, (25.1), the gradient of the loss follows from these two:
    G(λ) = (λ G_Q + G_A) / (λ N_Q + N_A)                           (32.2)
λ = 0 is the masked loss, λ = 1 the unmasked one.  What share of G(λ) comes from prompts:
    ‖λ G_Q‖ / (‖λ G_Q‖ + ‖G_A‖)  and  cos(G(λ), G_A)               (32.3)
Inner products of G_Q and G_A give both: ‖λ G_Q + G_A‖² = λ² ‖G_Q‖² + 2 λ G_Q·G_A + ‖G_A‖².

Derivation: why a long answer counts for more
    Example i, with the answer Aᵢ of |Aᵢ| tokens, gives Gᵢ = Σ gₙ for n in Aᵢ.  Under token
    normalisation all gₙ are divided by the same N_A, so its share in the sum of norms is
    shareᵢ = ‖Gᵢ‖ / Σⱼ ‖Gⱼ‖                                        (32.4)
    Let the token gradients be a common direction and noise, gₙ = μ + εₙ, the εₙ independent with
    mean 0 and E‖εₙ‖² = s².  The square of a sum of |A| of them is the square of the common part,
    which grows with |A|², and |A| squares of noise; the mixed terms have mean 0:
    E‖Gᵢ‖² = |Aᵢ|² ‖μ‖² + |Aᵢ| s²                                  (32.5)
    So ‖Gᵢ‖ grows as |A|^½ where noise rules, as |A| where the common direction does:
    the slope of ln‖Gᵢ‖ against ln|Aᵢ| lies between ½ and 1        (32.6)
    if tokens of short and of long answers are alike.  Late tokens of an answer are often easier
    than its first ones; then μ and s are less where |A| is large, and so is the slope.
    Where examples count the same, (25.2), Gᵢ is divided by |Aᵢ|, and the slope is less by 1, so
    between −½ and 0 or below: a long answer then counts for less, if anything.

Read it
    Alike examples, one of ten and one of a hundred answer tokens: under token normalisation the
    longer has between 3 and 10 times the other's say.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array
from minigpt2.data.batches import batch_of
from minigpt2.data.examples import Example
from minigpt2.data.loss_weights import LossWeights
from minigpt2.model.gpt2 import loss_and_gradients
from minigpt2.model.gradients import Gradients, gradients_of
from minigpt2.model.parameters import Parameters

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
        """‖λ G_Q + G_A‖, of which (32.2) is a multiple."""
        return sqrt(max(0.0, weight**2 * self.qq + 2 * weight * self.qa + self.aa))  # (32.2)

    def prompt_share(self, weight: float) -> float:
        """The prompts' part of the norms, from 0 to 1."""
        prompt, answer = weight * sqrt(self.qq), sqrt(self.aa)
        return prompt / (prompt + answer) if prompt + answer else 0.0  # (32.3)

    def alignment(self, weight: float) -> float:
        """The cosine of the angle between G(λ) and G_A: 1 where prompts change no direction."""
        both = self.norm(weight) * sqrt(self.aa)
        return (weight * self.qa + self.aa) / both if both else 0.0  # (32.3)


class Imbalance(NamedTuple):
    """What was measured."""

    parts: dict[str, Products]  # by part of the model: "all", "wte", "wpe", "h.0", ..., "ln_f"
    norms: Array  # (N,) ‖Gᵢ‖ of each example's answer
    lengths: Array  # (N,) |Aᵢ|
    prompt_tokens: int  # N_Q
    answer_tokens: int  # N_A

    @property
    def shares(self) -> Array:
        """Each example's share under token normalisation, (N,)."""
        return self.norms / self.norms.sum()  # (32.4)

    @property
    def shares_alike(self) -> Array:
        """Each example's share where examples count the same, (N,)."""
        norms = self.norms / self.lengths
        return norms / norms.sum()  # (32.4)

    @property
    def slope(self) -> float:
        """The slope of ln‖Gᵢ‖ against ln|Aᵢ|; NaN where all answers are equally long."""
        x, y = np.log(self.lengths), np.log(np.maximum(self.norms, 1e-300))
        spread = x - x.mean()
        variance = float(spread @ spread)
        return float(spread @ y) / variance if variance else float("nan")  # (32.6)

    @property
    def fit(self) -> tuple[float, float]:
        """‖μ‖² and s² of (32.5) that fit best: ‖Gᵢ‖² / |Aᵢ| is a straight line in |Aᵢ|."""
        x, y = self.lengths - self.lengths.mean(), self.norms**2 / self.lengths
        common = max(0.0, float(x @ y) / max(float(x @ x), 1e-300))  # (32.5)
        return common, max(0.0, float(y.mean() - common * self.lengths.mean()))  # (32.5)


def norms_per_token(measured: Imbalance, part: Products) -> tuple[float, float]:
    """Return ‖G_Q‖ / N_Q and ‖G_A‖ / N_A of a part of the model."""
    prompt, answer = part.qq**0.5, part.aa**0.5
    return prompt / max(1, measured.prompt_tokens), answer / measured.answer_tokens


def parts_of(parameters: Parameters) -> dict[str, list[str]]:
    """Return the names of the tensors of each part of the model, in the order of the model."""
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
        norms.append(sqrt(float(np.vdot(single.flat, single.flat))))
        from_answers.flat += single.flat  # (32.1)
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


def dot(names: Sequence[str], first: Gradients, second: Gradients) -> float:
    """Return the inner product of two gradients over some tensors."""
    return sum(float(np.vdot(first[name], second[name])) for name in names)
