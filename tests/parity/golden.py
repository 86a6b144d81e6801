"""Golden numbers: what the reference gave for the small models, few enough to keep in a file."""

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("golden.json")


def fingerprint(case, last_logits, loss, gradients, losses, greedy):
    """The numbers of one case: loss, last logits, two numbers a gradient, ten losses, an answer.

    Of each gradient its norm, and its product with the waves sin 1, sin 2, ...: both change with
    nearly any mistake.
    """
    return {
        "loss": float(loss),
        "logits": [float(x) for x in last_logits[-1][:20]],
        "gradients": [number for name in sorted(gradients) for number in two(gradients[name])],
        "losses": [float(x) for x in losses],
        "greedy": greedy,
    }


def two(gradient):
    """The norm of an array, and its product with waves of the same size."""
    flat = np.asarray(gradient, np.float64).ravel()
    return [float(np.linalg.norm(flat)), float(flat @ np.sin(np.arange(1, flat.size + 1)))]
