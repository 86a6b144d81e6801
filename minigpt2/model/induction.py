"""Induction heads: initial values with which a model can look up a word from its first step.

Why
    To answer about zinc, a model must copy the word from the question into its
    answer.  Transformers learn to copy with two attention heads in successive blocks
    (Elhage et al. 2021, "induction heads"; Olsson et al. 2022).  In the first, each
    token reads which token precedes it.  The second looks for a position whose
    preceding token equals the current token, and copies the token at that position.
    A small data set does not suffice to learn this from random values, since neither
    head is useful without the other.  So the initial values already contain both.

Definition, with heads of D features, waves being rows of wpe and e rows of wte
    Positions have the first D features to themselves, as waves from half a turn a
    position to about half a turn, ½ T^(2/D), in T positions; tokens have the rest:
    wave(i) = ( sin(r₁ i) … , cos(r₁ i) … ),  r_f = π T^(−2(f−1)/D),  f = 1 … D/2   (17.1)
    wpeᵢ = σ √2 (wave(i), 0),  eₜ = σ (0, zₜ),  zₜ standard normal  (17.2)
    A vocabulary spells a word in several ways: after a space, at the start of a line, with
    a capital letter.  Tokens that spell the same word, g(t), are given a part in common,
    zₜ = √a u_{g(t)} + √(1 − a) z′ₜ,  u and z′ standard normal      (17.3)
    so a word that is looked up in one form is found in another.
    Half of the first block's heads look d places back, d = 1, 2, 3, …  By the angle-sum
    formulas a rotation R turns wave(i) into wave(i − d), whatever i is:
    sin(r i − r d) = sin(r i) cos(r d) − cos(r i) sin(r d)          (17.4)
    cos(r i − r d) = cos(r i) cos(r d) + sin(r i) sin(r d)          (17.5)
    q = R wave(i),  k = wave(j)                                     (17.6)
    q · k = Σ_f cos(r_f (i − d − j)), which is largest where j = i − d   (17.7)
    They read the token's features along the columns of A and write them along those of
    B.  A and B are D columns each of two random orthonormal bases of the tokens' features:
    v = Aᵀ eⱼ,  o = σ B v                                           (17.8)
    Some heads of the second block compare the token at i with what (17.8), for d = 1,
    wrote at j, the token at j − 1, and copy the token at j:
    q = Aᵀ eᵢ,  k = Bᵀ xⱼ ≈ Aᵀ eⱼ₋₁                                 (17.9)
    v = Mᵀ eⱼ,  o = β σ M v                                         (17.10)
    with M columns of one more such basis.  q · k is large where tⱼ₋₁ = tᵢ, so what
    followed the token before is likely to follow it again: the output projection
    is wte, and M Mᵀ e has a large product with e.
    Both kinds of q and k are multiplied by √(s/√D), which makes the score (8.2) of a full
    match about s, since the layer normalisation gives each feature a mean square of 1.
    All other projections that end a branch are 0: those blocks are the identity.

Read it
    Before the first step the model already continues "zinc ladder Peru … zinc" with
    "ladder", having never seen these words.  Everything here is trained like
    any other parameter.

Example: eight positions in four features; the query of position 5, turned one place back
    >>> table = waves(8, 4)
    >>> q = table @ rotation(1, 8, 4)
    >>> print((q[5] @ table.T).round(1))  # (17.7): the largest product is with position 4
    [ 0.7 -2.   0.4 -0.6  2.  -0.6  0.4 -2. ]

Cost
    None: these are initial values.
"""

from math import pi, sqrt

import numpy as np

from minigpt2.backend import Array
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.model.parameters import Parameters

OFFSET_SCORE, MATCH_SCORE = 30.0, 12.0  # s, for the two kinds of heads
BETA = 3.0  # how much louder than a token its copy is
WORD_SHARE = 0.7  # a, the cosine of the embeddings of two forms of a word, on average


def waves(positions: int, features: int) -> Array:
    """Return the waves of each position, (T, D): sines, then cosines."""
    angles = np.arange(positions)[:, None] * rates(positions, features)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # (T, D)  (17.1)


def rates(positions: int, features: int) -> Array:
    """Return the radians a position of each wave, (D/2,), fastest first."""
    half = features // 2
    return pi * positions ** (-np.arange(half) / half)  # (D/2,)  (17.1)


def rotation(distance: int, positions: int, features: int) -> Array:
    """Return the matrix (D, D) with wave(i) @ matrix = wave(i - distance): (17.7) peaks there."""
    angles = distance * rates(positions, features)
    c, s = np.diag(np.cos(angles)), np.diag(np.sin(angles))
    return np.block([[c, s], [-s, c]])  # (D, D)  (17.4) (17.5)


def token_basis(config: GPT2Config, rng: np.random.Generator) -> Array:
    """Return orthonormal columns (C, C - D) that are 0 in the features of the positions."""
    d = config.n_embd // config.n_head
    basis = np.zeros((config.n_embd, config.n_embd - d))
    basis[d:], _ = np.linalg.qr(rng.standard_normal((config.n_embd - d, config.n_embd - d)))
    return basis


def initialise_induction(
    config: GPT2Config, rng: np.random.Generator, words: Array | None = None
) -> Parameters:
    """Draw initial values that copy; the model needs two blocks and two heads at least.

    `words` (V,) numbers the words: tokens with the same number are forms of one word.
    """
    c, heads = config.n_embd, config.n_head
    d, std = c // heads, 1 / sqrt(c)
    parameters = initialise(config, rng, std=std)
    for name, view in parameters.views.items():
        if name.endswith("c_proj.weight"):
            view[...] = 0
    wte, wpe = parameters["wte.weight"], parameters["wpe.weight"]
    wte[:, :d] = 0  # (17.2)
    if words is not None:
        u = std * rng.standard_normal((words.max() + 1, c - d))
        wte[:, d:] = sqrt(WORD_SHARE) * u[words] + sqrt(1 - WORD_SHARE) * wte[:, d:]  # (17.3)
    wpe[...] = 0
    wpe[:, :d] = std * sqrt(2) * waves(config.n_positions, d)  # (17.2)
    a, b, m = (token_basis(config, rng) for _ in range(3))

    def put(block: int, head: int, q: Array, k: Array, v: Array, o: Array) -> None:
        columns = slice(head * d, (head + 1) * d)
        qkv = parameters.block(block)["attn.c_attn.weight"].reshape(c, 3, c)
        qkv[:, 0, columns], qkv[:, 1, columns], qkv[:, 2, columns] = q, k, v
        parameters.block(block)["attn.c_proj.weight"][columns] = o

    positions = np.eye(c, d)
    for head in range(heads // 2):
        gain = sqrt(OFFSET_SCORE / sqrt(d))
        own = slice(head * d, (head + 1) * d)
        turned = positions @ rotation(head + 1, config.n_positions, d)
        put(0, head, gain * turned, gain * positions, a[:, own], std * b[:, own].T)  # (17.6) (17.8)
    for head in range((heads + 1) // 2):
        gain = sqrt(MATCH_SCORE / sqrt(d))
        own = slice(head * d, (head + 1) * d)
        read, written = gain * a[:, :d], gain * b[:, :d]  # (17.9)
        put(1, head, read, written, m[:, own], BETA * std * m[:, own].T)  # (17.10)
    return parameters
