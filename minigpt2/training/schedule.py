"""Schedule: the learning rate rises, then falls.

Why
    AdamW's second moment needs some steps before it means something, so the
    first steps are small.  Later the noise of the gradient, not its direction,
    limits progress, so the steps shrink again.

Definition, in step s = 1 … S with W warm-up steps and peak η
    ηₛ = η · s / W                        for s ≤ W                 (18.1)
    f  = (s − W) / (S − W + 1)            for s > W                 (18.2)
    ηₛ = η · (1 − f)                      linear                    (18.3)
    ηₛ = η · ½ (1 + cos π f)              cosine                    (18.4)
    The first step has η/W, not 0, and the last one is not 0 either: 0 would be a
    step that computes a gradient and throws it away.
"""

from math import cos, pi


def learning_rate(step: int, steps: int, peak: float, warmup: int, shape: str) -> float:
    """Return the learning rate of step 1 ≤ step ≤ steps."""
    if step <= warmup:
        return peak * step / warmup  # (18.1)
    f = (step - warmup) / (steps - warmup + 1)  # (18.2)
    if shape == "linear":
        return peak * (1 - f)  # (18.3)
    if shape == "cosine":
        return peak * 0.5 * (1 + cos(pi * f))  # (18.4)
    raise ValueError(f"the schedule is 'linear' or 'cosine', not {shape!r}")
