"""A world so small that every expectation is a sum: 3 tokens, answers of at most 3, 15 in all.

Token 2 is the end-of-text.  An answer ends with it, or is cut at 3 tokens.  Two policies live here:
a table of logits, one row for each of the 7 states (what was written so far), and a GPT-2 of one
block, whose gradients are the model's own.  What is proved for the first of both is a statement
about estimators; with the second, one about the code that a run uses.

A gradient is made of weights, one for each token of each answer, as everywhere in this part: the
gradient of −Σ w ln p.
"""

from itertools import product

import numpy as np

from minigpt2.alignment.log_probs import Answer, batch_of_answers, log_probs, policy_gradients
from minigpt2.model.config import GPT2Config
from minigpt2.model.gradients import gradients_of
from minigpt2.model.parameters import Parameters, tensor_shapes
from minigpt2.training.objective import Options
from tests.model.cases import drawn

V, LONGEST, END = 3, 3, 2


def all_answers():
    """Every answer, as a tuple of tokens."""
    stems = [stem for n in range(LONGEST) for stem in product(range(V - 1), repeat=n)]
    ended = [(*stem, END) for stem in stems]
    return sorted(ended + list(product(range(V - 1), repeat=LONGEST)), key=lambda a: (len(a), a))


ANSWERS = all_answers()
ENDED = np.array([answer[-1] == END for answer in ANSWERS])
STATES = sorted({answer[:t] for answer in ANSWERS for t in range(len(answer))})
TOKENS = [(a, t) for a, answer in enumerate(ANSWERS) for t in range(len(answer))]
OF = np.array([a for a, _ in TOKENS])  # (M,) the answer of each token
STATE = np.array([STATES.index(ANSWERS[a][:t]) for a, t in TOKENS])  # (M,)
ACTION = np.array([ANSWERS[a][t] for a, t in TOKENS])  # (M,)
LENGTHS = np.bincount(OF)  # (15,)
LAST = np.cumsum(LENGTHS) - 1  # (15,) each answer's last token


def sums(x):
    """The sums (15,) over each answer's tokens."""
    return np.add.reduceat(x, LAST + 1 - LENGTHS)


def by_answer(x):
    """The parts of x (M,), one for each answer."""
    return np.split(x, LAST[:-1] + 1)


class Table:
    """A policy with logits for every state."""

    def __init__(self, seed=0, scale=1.0):
        self.start = scale * np.random.default_rng(seed).standard_normal(len(STATES) * V)

    def log_p(self, flat=None):
        """ln p (M,) of each token, at any parameters; complex ones, too."""
        logits = (self.start if flat is None else flat).reshape(-1, V)
        largest = logits.real.max(-1, keepdims=True)
        log_z = largest + np.log(np.exp(logits - largest).sum(-1, keepdims=True))
        return (logits - log_z)[STATE, ACTION]

    def gradient(self, weights):
        """The gradient of −Σ w ln p."""
        p = np.exp(self.all_log_p())
        rows = weights[:, None] * (p[STATE] - np.eye(V)[ACTION])  # (M, V)
        total = np.zeros((len(STATES), V))
        np.add.at(total, STATE, rows)
        return total.ravel()

    def all_log_p(self):
        """ln p (7, V) of every token in every state."""
        logits = self.start.reshape(-1, V)
        return logits - np.logaddexp.reduce(logits, -1, keepdims=True)


CONFIG = GPT2Config(vocab_size=V, n_positions=4, n_embd=6, n_layer=1, n_head=2)
PROMPT = [1]


class Model:
    """A GPT-2 of one block, and the answers below one prompt."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        shapes = tensor_shapes(CONFIG).items()
        self.start = np.concatenate([drawn(name, shape, rng).ravel() for name, shape in shapes])
        self.batch = batch_of_answers([Answer(PROMPT, answer) for answer in ANSWERS])
        assert self.batch.answers.tolist() == OF.tolist()

    def log_p(self, flat=None):
        """ln p (M,) of each token, at any parameters; complex ones, too."""
        return log_probs(Parameters(CONFIG, self.start if flat is None else flat), self.batch)

    def gradient(self, weights):
        """The gradient of −Σ w ln p: the model's own backward pass."""
        parameters = Parameters(CONFIG, self.start)
        gradients = gradients_of(parameters)
        policy_gradients(parameters, self.batch, gradients, lambda log_p: weights, Options())
        return gradients.flat


def probabilities(world, flat=None):
    """π (15,) of every answer."""
    return np.exp(sums(world.log_p(flat)))


def error(world, weights, value, directions=6):
    """By how much the gradient of −Σ w ln p is off that of −value(ln p), relative to its length.

    `value` is differentiated by the complex step along random directions; weights (M,) are what
    is to be tested.
    """
    gradient = world.gradient(np.asarray(weights, np.float64))
    vs = np.random.default_rng(7).standard_normal((directions, len(world.start)))
    h = 1e-30
    exact = np.array([-value(world.log_p(world.start + 1j * h * v)).imag / h for v in vs])
    return float(abs(vs @ gradient - exact).max() / (np.sqrt(np.mean(exact**2)) or 1.0))


def compared(gradient, exact):
    """The cosine of two gradients, and the length of the first relative to the second."""
    lengths = np.linalg.norm(gradient), np.linalg.norm(exact)
    return gradient @ exact / (lengths[0] * lengths[1]), lengths[0] / lengths[1]


TABLE, MODEL = Table(), Model()
WORLDS = {"table": TABLE, "GPT-2": MODEL}
REWARDS = np.random.default_rng(1).standard_normal(len(ANSWERS))  # (15,)
REFERENCE = Table(seed=2).log_p()  # (M,)
