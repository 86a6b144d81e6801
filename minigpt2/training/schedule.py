"""Schedule: the learning rate rises, then falls.

Why
    AdamW estimates its second moment from few gradients at first, so the first
    steps are small.  Later the noise of the gradient, not its direction, limits
    progress, so the steps shrink again.

Definition, in step s = 1 … S with W warm-up steps and peak η
    ηₛ = η · s / W                        for s ≤ W                 (19.1)
    f  = (s − W) / (S − W + 1)            for s > W                 (19.2)
    ηₛ = η · (1 − f)                      linear                    (19.3)
    ηₛ = η · ½ (1 + cos π f)              cosine                    (19.4)
    Neither the first rate, η/W, nor the last one is 0: a step with 0 would compute
    a gradient and throw it away.  Without warm-up, W = 0, the first rate is below η
    already: the fall has S steps, and none of them is at its beginning.

Example: S = 4 steps, W = 2 of them warm-up, η = 1
    The last two have f = 1/3 and 2/3; cos π/3 = ½ and cos 2π/3 = −½.
    >>> [round(learning_rate(s, 4, 1.0, 2, "cosine"), 3) for s in (1, 2, 3, 4)]
    [0.5, 1.0, 0.75, 0.25]
    >>> [round(learning_rate(s, 4, 1.0, 2, "linear"), 3) for s in (1, 2, 3, 4)]
    [0.5, 1.0, 0.667, 0.333]
"""

from math import cos, pi


def learning_rate(step: int, steps: int, peak: float, warmup: int, shape: str) -> float:
    """Return the learning rate of a step, counted from 1, of a run of so many steps."""
    if step <= warmup:
        return peak * step / warmup  # (19.1)
    f = (step - warmup) / (steps - warmup + 1)  # (19.2)
    if shape == "linear":
        return peak * (1 - f)  # (19.3)
    if shape == "cosine":
        return peak * 0.5 * (1 + cos(pi * f))  # (19.4)
    raise ValueError(f"the schedule is 'linear' or 'cosine', not {shape!r}")
