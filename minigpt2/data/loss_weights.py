"""Loss weights: how much each token of an example counts in the loss.

Other programs call this a loss mask: weight 1 for tokens that the model learns to
predict, weight 0 for the others.  Here a weight may be any number.

Definition
    An example has answer tokens A and prompt tokens Q.  Neither contains the example's
    first token, since no token before it could predict it.  λ is the weight of a prompt
    token.
    wₙ = 1 for n in A,  λ for n in Q                               (26.1)
    To give every example the same total weight, however long its answer is, divide by
    the sum over the example:
    wₙ → wₙ / Σₘ wₘ                                                (26.2)
    The loss is Σ wₙ nllₙ / Σ wₙ over all examples of a step (training/step).

Read it
    λ = 0 trains on responses only; λ = 1 counts all tokens alike.  With λ = 0, (26.2)
    gives each token of an answer the weight 1/|A|, so the loss is the mean over the
    examples of their mean nll.

Numbers to check by hand
    Three prompt tokens and two answer tokens, λ = 0.5.  By (26.1) the first token has
    weight 0, the other two prompt tokens have 0.5 each, and the answer tokens 1 each:
    3 in all.  (26.2) divides by 3.

    >>> example = Example(
    ...     ids=[10, 11, 12, 20, 21], is_answer=[False, False, False, True, True]
    ... )
    >>> LossWeights(prompt_weight=0.5).of(example)
    [0.0, 0.5, 0.5, 1.0, 1.0]
    >>> print([f"{w:.3f}" for w in LossWeights(0.5, per_example=True).of(example)])
    ['0.000', '0.167', '0.167', '0.333', '0.333']
"""

from dataclasses import dataclass

from minigpt2.data.examples import Example


@dataclass(frozen=True)
class LossWeights:
    """The rule that gives each token its weight in the loss."""

    prompt_weight: float = 0.0  # λ
    per_example: bool = False  # (26.2)

    def of(self, example: Example) -> list[float]:
        """Return the weight of each token of an example."""
        w = [1.0 if answer else self.prompt_weight for answer in example.is_answer]  # (26.1)
        w[0] = 0.0  # (26.1)
        if not self.per_example:
            return w
        total = sum(w)
        return [x / total for x in w]  # (26.2)


RESPONSE_ONLY = LossWeights()
