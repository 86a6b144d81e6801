"""Loss weights: how much each token of an example counts as a target.

Definition, for an example with the answer tokens A and the prompt tokens Q, its first token
excepted, which nothing predicts; λ is the prompt's weight
    wₙ = 1 for n in A,  λ for n in Q                               (25.1)
and where every example is to count the same, however long its answer is,
    wₙ → wₙ / Σₘ wₘ, the sum being over the example                (25.2)
The loss is Σ wₙ nllₙ / Σ wₙ over all examples of a step (training/step).

Read it
    λ = 0 is response-only, λ = 1 counts all tokens alike.  With λ = 0 (25.2) gives each token of an
    answer 1/|A|, so the loss is the mean of the examples' mean nll.
"""

from dataclasses import dataclass

from minigpt2.data.examples import Example


@dataclass(frozen=True)
class Weighing:
    """How tokens are weighed."""

    prompt_weight: float = 0.0  # λ
    per_example: bool = False

    def weights(self, example: Example) -> list[float]:
        """Return the weight of each token of an example."""
        w = [1.0 if answer else self.prompt_weight for answer in example.is_answer]  # (25.1)
        w[0] = 0.0  # (25.1)
        return [x / sum(w) for x in w] if self.per_example else w  # (25.2)


RESPONSE_ONLY = Weighing()
