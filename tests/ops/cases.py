"""Every op with inputs to try it on, and the mistakes that a person would make in its backward.

Sizes are distinct primes where they can be, so that no two axes can be taken for one another.
A broken backward returns None for the gradients that it leaves right.  None of them looks into
what the op saved: each is written from the inputs, by the plain formula that keeps every
intermediate.
"""

import numpy as np

from minigpt2.backend import array_module
from minigpt2.ops.attention import attention, attention_backward
from minigpt2.ops.cross_entropy import cross_entropy, cross_entropy_gradient
from minigpt2.ops.dropout import dropout, dropout_backward
from minigpt2.ops.embedding import embedding, embedding_backward
from minigpt2.ops.gelu import gelu, gelu_backward
from minigpt2.ops.layer_norm import layer_norm, layer_norm_backward
from minigpt2.ops.linear import linear, linear_backward
from minigpt2.ops.lora import lora, lora_backward
from minigpt2.ops.softmax import softmax, softmax_backward
from tests import plain
from tests.gradients import Case

N, H, D, V, T, K = 13, 3, 5, 29, 11, 7
C, F = H * D, 4 * H * D
SIZES = {"N": N, "H": H, "D": D, "C": C, "F": F, "V": V, "T": T}


def normal(*shape, scale=1.0):
    """A maker of normal arrays of this shape."""
    return lambda rng: scale * rng.standard_normal(shape)


def passes(op, backward, *fixed):
    """Forward and backward of an op as functions of its differentiable arguments alone."""

    def forward_only(*arguments):
        return op(*arguments, *fixed)[0]

    def backward_only(dy, arguments):
        gradients = backward(dy, op(*arguments, *fixed)[1])
        return gradients[: len(arguments)] if isinstance(gradients, tuple) else (gradients,)

    return forward_only, backward_only


# Linear map.  The square one can hide a forgotten transpose from every check of shapes.

LINEAR_BUGS = {
    "sign of dx": lambda dy, a: (-dy @ a[1].T, None, None),
    "dx with outputs off by one": lambda dy, a: (dy @ np.roll(a[1], 1, 1).T, None, None),
    "dw is a mean over rows": lambda dy, a: (None, a[0].T @ dy / N, None),
    "dw sees the first row only": lambda dy, a: (None, np.outer(a[0][0], dy[0]), None),
    "db is a mean over rows": lambda dy, a: (None, None, dy.mean(0)),
    "db sees the last row only": lambda dy, a: (None, None, dy[-1]),
}
SQUARE_BUGS = {
    "dx without the transpose": lambda dy, a: (dy @ a[1], None, None),
    "dw transposed": lambda dy, a: (None, dy.T @ a[0], None),
    "db summed over features": lambda dy, a: (None, None, np.resize(dy.sum(1), C)),
}
LINEAR = [
    Case(
        name,
        *passes(linear, linear_backward),
        {"x": normal(N, C), "w": normal(C, k), "b": normal(k)},
        bugs,
        linear_in=("x", "w", "b"),
    )
    for name, k, bugs in (("linear", K, LINEAR_BUGS), ("linear, square", C, SQUARE_BUGS))
]


def to_residual_backward(dy, arguments):
    """The gradients of a branch that is added to the residual stream."""
    return *linear_backward(dy, linear(*arguments)[1]), dy.copy()


LINEAR.append(
    Case(
        "linear, added to the residual",
        lambda *arguments: linear(*arguments)[0],
        to_residual_backward,
        {"x": normal(N, C), "w": normal(C, K), "b": normal(K), "residual": normal(N, K)},
        {
            "forget the residual's gradient": lambda dy, a: (None, None, None, 0 * dy),
            "sign of the residual's gradient": lambda dy, a: (None, None, None, -dy),
            "the residual's gradient twice": lambda dy, a: (None, None, None, 2 * dy),
        },
        linear_in=("x", "w", "b", "residual"),
    )
)


# Embedding.  Ids and positions repeat, and some of either never occur.

IDS = np.array([3, 28, 3, 3, 0, 17, 5, 28, 1, 17, 3, 9, 0])
POSITIONS = np.array([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 0, 1])


def scattered(rows, index, size, how):
    """A table (size, C) with the rows put at their index in the way of `how`."""
    table = np.zeros((size, rows.shape[1]))
    how(table, index, rows)
    return table


def overwrite(table, index, rows):
    """Writes instead of adding: the last row of each index is left."""
    table[index] = rows


def average(table, index, rows):
    """Adds, then divides by how often each index occurs."""
    np.add.at(table, index, rows)
    table /= np.maximum(np.bincount(index, minlength=len(table)), 1)[:, None]


def into_empty_tables(dx, saved):
    """The embedding's backward pass, with tables to add to."""
    xp = array_module(dx)
    tables = xp.zeros((V, C), dx.dtype), xp.zeros((T, C), dx.dtype)
    embedding_backward(dx, saved, *tables)
    return tables


EMBEDDING = [
    Case(
        "embedding",
        *passes(embedding, into_empty_tables, IDS, POSITIONS),
        {"wte": normal(V, C), "wpe": normal(T, C)},
        {
            "repeated ids overwrite": lambda dx, a: (scattered(dx, IDS, V, overwrite), None),
            "repeated ids average": lambda dx, a: (scattered(dx, IDS, V, average), None),
            "ids off by one": lambda dx, a: (scattered(dx, (IDS + 1) % V, V, np.add.at), None),
            "repeated positions overwrite": lambda dx, a: (
                None,
                scattered(dx, POSITIONS, T, overwrite),
            ),
            "positions run through the row": lambda dx, a: (
                None,
                scattered(dx, np.arange(N) % T, T, np.add.at),
            ),
            "positions count from one": lambda dx, a: (
                None,
                scattered(dx, POSITIONS + 1, T, np.add.at),
            ),
        },
        linear_in=("wte", "wpe"),
    )
]


# Layer normalisation.


def layer_norm_dx(dy, arguments, mean=1, projection=1, by_gamma=True, r_power=1, centred=True):
    """dx of layer normalisation with a switch for each of its parts."""
    x, gamma, _ = arguments
    xc = x - x.mean(-1, keepdims=True)
    r = ((xc * xc).mean(-1, keepdims=True) + 1e-5) ** -0.5
    x_hat = (xc if centred else x) * r
    g = gamma * dy if by_gamma else dy
    along = x_hat * (g * x_hat).mean(-1, keepdims=True)
    return r**r_power * (g - mean * g.mean(-1, keepdims=True) - projection * along)


def layer_norm_bug(**switches):
    """A backward pass whose dx has these switches set."""
    return lambda dy, a: (layer_norm_dx(dy, a, **switches), None, None)


LAYER_NORM = [
    Case(
        "layer_norm",
        *passes(layer_norm, layer_norm_backward),
        {"x": normal(N, C), "gamma": normal(C), "beta": normal(C)},
        {
            "drop the mean": layer_norm_bug(mean=0),
            "drop the projection": layer_norm_bug(projection=0),
            "add the projection": layer_norm_bug(projection=-1),
            "forget gamma": layer_norm_bug(by_gamma=False),
            "forget r": layer_norm_bug(r_power=0),
            "x̂ from x that is not centred": layer_norm_bug(centred=False),
            "dgamma from x, not x̂": lambda dy, a: (None, (dy * a[0]).sum(0), None),
            "dgamma is dbeta": lambda dy, a: (None, dy.sum(0), None),
            "dgamma is a mean over rows": lambda dy, a: (
                None,
                layer_norm_backward(dy, layer_norm(*a)[1])[1] / N,
                None,
            ),
            "dbeta is a mean over rows": lambda dy, a: (None, None, dy.mean(0)),
            "dbeta by gamma": lambda dy, a: (None, None, a[1] * dy.sum(0)),
            "sign of dbeta": lambda dy, a: (None, None, -dy.sum(0)),
        },
        linear_in=("gamma", "beta"),
    )
]


def sum_and_norm(residual, a, gamma, beta):
    """What a block has after the sum: the sum itself and its normalisation, in one array."""
    xp = array_module(a)
    x, _ = linear(a, xp.asarray(np.eye(C, dtype=a.dtype)), None, residual)
    y, _ = layer_norm(x, gamma, beta)
    return xp.concatenate([x, y], -1)


def sum_and_norm_backward(d, arguments, factor=1.0):
    """Its gradients, where the one that comes along the residual is multiplied by `factor`."""
    d_residual, dy = factor * d[:, :C], array_module(d).ascontiguousarray(d[:, C:])
    residual, a, gamma, beta = arguments
    saved = layer_norm(residual + a, gamma, beta)[1]
    dx, dgamma, dbeta = layer_norm_backward(dy, saved, d_residual=d_residual)
    return dx, dx.copy(), dgamma, dbeta


def residual_bug(factor):
    """A backward pass that does not add the residual's gradient exactly once."""
    return lambda d, a: (*sum_and_norm_backward(d, a, factor)[:2], None, None)


LAYER_NORM.append(
    Case(
        "layer_norm, of a sum",
        sum_and_norm,
        sum_and_norm_backward,
        {"residual": normal(N, C), "a": normal(N, C), "gamma": normal(C), "beta": normal(C)},
        {
            "forget the residual's gradient": residual_bug(0),
            "the residual's gradient twice": residual_bug(2),
            "sign of the residual's gradient": residual_bug(-1),
        },
        linear_in=("gamma", "beta"),
    )
)


# GELU, softmax, dropout.


def gelu_bug(inner=3, chain=True, product=True, square=2):
    """dx of GELU with a switch for each of its parts."""

    def broken(dy, arguments):
        (x,) = arguments
        t = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
        du = np.sqrt(2 / np.pi) * (1 + inner * 0.044715 * x**2) if chain else 1
        return (dy * (0.5 * (1 + t) + (0.5 * x * (1 - t**square) * du if product else 0)),)

    return broken


def sigmoid_gelu(dy, arguments):
    """The derivative of the other approximation, x σ(1.702 x)."""
    (x,) = arguments
    gate = 1 / (1 + np.exp(-1.702 * x))
    return (dy * (gate + 1.702 * x * gate * (1 - gate)),)


def gelu_and_bias(h, b):
    """GELU of h + b."""
    return gelu(h, b)[0]


def gelu_and_bias_backward(dy, arguments):
    """Its way back: the bias is added to every row."""
    return gelu_backward(dy, gelu(*arguments)[1])


def biased_bug(argument):
    """Both gradients with the slope at another argument."""

    def broken(dy, arguments):
        (dh,) = gelu_bug()(dy, (argument(*arguments),))
        return dh, dh.sum(0)

    return broken


GELU = [
    Case(
        "gelu",
        *passes(gelu, gelu_backward),
        {"x": normal(N, F, scale=1.5)},
        {
            "forget the 3 of the cube": gelu_bug(inner=1),
            "forget the inner derivative": gelu_bug(chain=False),
            "forget the product rule": gelu_bug(product=False),
            "1 − t for 1 − t²": gelu_bug(square=1),
            "the other approximation": sigmoid_gelu,
        },
    ),
    Case(
        "gelu, with a bias",
        gelu_and_bias,
        gelu_and_bias_backward,
        {"h": normal(N, F, scale=1.5), "b": normal(F)},
        {
            "the slope without the bias": biased_bug(lambda h, b: h),
            "the bias twice": biased_bug(lambda h, b: h + 2 * b),
            "the bias taken off": biased_bug(lambda h, b: h - b),
            "db is a mean over rows": lambda dy, a: (None, gelu_and_bias_backward(dy, a)[1] / N),
        },
    ),
]


def softmax_bug(formula):
    """ds by a formula of dp and p."""

    def broken(dp, arguments):
        p = np.exp(arguments[0] - arguments[0].max(-1, keepdims=True))
        return (formula(dp, p / p.sum(-1, keepdims=True)),)

    return broken


SOFTMAX = [
    Case(
        "softmax",
        *passes(softmax, softmax_backward),
        {"s": normal(N, V)},
        {
            "diagonal of the Jacobian only": softmax_bug(lambda dp, p: dp * p * (1 - p)),
            "drop the inner product": softmax_bug(lambda dp, p: dp * p),
            "forget p in the inner product": softmax_bug(
                lambda dp, p: p * (dp - dp.sum(-1, keepdims=True))
            ),
            "mean for sum": softmax_bug(lambda dp, p: p * (dp - (dp * p).mean(-1, keepdims=True))),
            "sum over rows": softmax_bug(lambda dp, p: p * (dp - (dp * p).sum(0))),
            "sign of the inner product": softmax_bug(
                lambda dp, p: p * (dp + (dp * p).sum(-1, keepdims=True))
            ),
        },
    )
]

RATE = 0.3


def dropout_seeded(x, rate):
    """Dropout that drops the same features each time."""
    return dropout(x, rate, np.random.default_rng(7))


def kept(shape):
    """The factors 0 or 1 / (1 − RATE) that dropout_seeded multiplies with."""
    return dropout_seeded(np.ones(shape), RATE)[0]


DROPOUT = [
    Case(
        "dropout",
        *passes(dropout_seeded, dropout_backward, RATE),
        {"x": normal(N, C)},
        {
            "mask not rescaled": lambda dy, a: (dy * (kept(dy.shape) > 0),),
            "scaled by 1 − ρ": lambda dy, a: (dy * (kept(dy.shape) > 0) * (1 - RATE),),
            "mask inverted": lambda dy, a: (dy * (kept(dy.shape) == 0) / (1 - RATE),),
            "mask forgotten": lambda dy, a: (dy / (1 - RATE),),
            "a new mask": lambda dy, a: (dropout(dy, RATE, np.random.default_rng(8))[0],),
        },
        linear_in=("x",),
    ),
    Case(
        "dropout, ρ = 0",
        *passes(dropout_seeded, dropout_backward, 0.0),
        {"x": normal(N, C)},
        linear_in=("x",),
    ),
]


# LoRA.  y is what the frozen map has made; a narrow case, and one of a rank above both sizes.

SCALE = 0.7


def lora_onto(x, y, a, b):
    """The adapter's result on a copy of y."""
    return lora(x, y.copy(), a, b, SCALE)[0]


def lora_gradients(dy, arguments):
    """dx, dy, da and db, where dx has nothing else."""
    x, y, a, b = arguments
    dx, da, db = lora_backward(dy, lora(x, y.copy(), a, b, SCALE)[1], 0 * dy @ b.T @ a.T)
    return dx, 1 * dy, da, db


LORA_BUGS = {
    "s left out": lambda dy, a: (
        dy @ a[3].T @ a[2].T,
        None,
        a[0].T @ dy @ a[3].T,
        (a[0] @ a[2]).T @ dy,
    ),
    "s twice": lambda dy, a: (
        SCALE**2 * dy @ a[3].T @ a[2].T,
        None,
        SCALE**2 * a[0].T @ dy @ a[3].T,
        SCALE**2 * (a[0] @ a[2]).T @ dy,
    ),
    "dx has nothing of the adapter": lambda dy, a: (np.zeros_like(a[0]), None, None, None),
    "dx off by one feature": lambda dy, a: (
        np.roll(SCALE * dy @ a[3].T @ a[2].T, 1, 1),
        None,
        None,
        None,
    ),
    "da is a mean over rows": lambda dy, a: (None, None, SCALE * a[0].T @ dy @ a[3].T / N, None),
    "da of the first row": lambda dy, a: (
        None,
        None,
        SCALE * np.outer(a[0][0], dy[0] @ a[3].T),
        None,
    ),
    "db of the last row": lambda dy, a: (
        None,
        None,
        None,
        SCALE * np.outer(a[0][-1] @ a[2], dy[-1]),
    ),
    "db is a mean over rows": lambda dy, a: (None, None, None, SCALE * (a[0] @ a[2]).T @ dy / N),
    "y does not lead on": lambda dy, a: (None, 0 * dy, None, None),
    "the sign of y": lambda dy, a: (None, -dy, None, None),
    "y counts s times": lambda dy, a: (None, SCALE * dy, None, None),
}
LORA_SQUARE_BUGS = {
    "A and B exchanged": lambda dy, a: (SCALE * dy @ a[2].T @ a[3].T, None, None, None),
    "no transpose": lambda dy, a: (SCALE * dy @ a[3] @ a[2], None, None, None),
    "da transposed": lambda dy, a: (None, None, SCALE * (a[0].T @ dy @ a[3].T).T, None),
}
LORA = [
    Case(
        name,
        lora_onto,
        lora_gradients,
        {"x": normal(N, C), "y": normal(N, k), "a": normal(C, r), "b": normal(r, k)},
        bugs,
        linear_in=("x", "y", "a", "b"),
    )
    for name, k, r, bugs in (
        ("lora", K, 2, LORA_BUGS),
        ("lora, r = 1", K, 1, LORA_BUGS),
        ("lora, r > C", K, C + 2, LORA_BUGS),
        ("lora, square", C, C, LORA_SQUARE_BUGS),
    )
]


# Attention.


def ends(*roots):
    """end[j] for a forest: each segment is (length, *segments below it), laid out depth first."""
    end = []

    def lay(length, *below):
        own = slice(len(end), len(end) + length)
        end.extend([0] * length)
        for segment in below:
            lay(*segment)
        end[own] = [len(end)] * length

    for root in roots:
        lay(*root)
    return np.array(end)


ONE_SEQUENCE = ends((N,))
PACKED = ends((4,), (1,), (8,))
FOREST = ends((3, (2, (1,), (2,)), (2,)), (1, (2,)))  # a prefix of prefixes, with sibling leaves


def probabilities_if(qkv, end, visible, divisor=None):
    """q, k, v (H, N, D) and exp(s − λ) (H, N, N) where `visible` (N, N) is believed to hold.

    λ is that of the right pairs.
    """
    q, k, v, _ = plain.attention_probabilities(qkv, end, H)
    s = q @ k.swapaxes(1, 2) / (divisor or np.sqrt(q.shape[-1]))
    top = np.where(plain.visible_pairs(end), s, -np.inf).max(-1, keepdims=True)
    total = np.exp(np.where(plain.visible_pairs(end), s - top, -np.inf)).sum(-1, keepdims=True)
    return q, k, v, np.exp(np.where(visible, s - top, -np.inf)) / total


def attention_dqkv(
    do,
    qkv,
    end,
    z=1.0,
    visible=None,
    z_dp=None,
    delta=1,
    power=1,
    right=True,
    swap=False,
    divisors=(D**0.5, D**0.5),
):
    """dqkv of H heads with a switch for each part that can go wrong; two divisors: of s, and ds."""
    visible = plain.visible_pairs(end) if visible is None else visible
    q, k, v, p = probabilities_if(qkv, end, visible, divisors[0])
    scale = divisors[1] ** -power
    do = plain.heads_of(do, H)
    dv = ((z * p).swapaxes(1, 2) if right else z * p) @ do
    dp = (z if z_dp is None else z_dp) * (do @ v.swapaxes(1, 2))
    ds = p * (dp - delta * (dp * p).sum(-1, keepdims=True))
    dq, dk = scale * (ds @ k), scale * (ds.swapaxes(1, 2) @ q)
    parts = (dk, dq, dv) if swap else (dq, dk, dv)
    return np.concatenate([plain.rows_of(part) for part in parts], 1)


def keep_factors(qkv, end, **options):
    """The z (H, N, N) that attention really uses, found by giving it one-hot values."""
    _, _, _, p = plain.attention_probabilities(qkv, end, H)
    z_p = np.empty_like(p)
    for first in range(0, N, D):
        v = np.repeat(np.eye(N)[:, None, first : first + D], H, axis=1)
        v = np.pad(v, ((0, 0), (0, 0), (0, D - v.shape[2]))).reshape(N, C)
        o = attention(np.concatenate([qkv[:, : 2 * C], v], 1), end, H, **options)[0]
        columns = slice(first, min(first + D, N))
        z_p[:, :, columns] = o.reshape(N, H, D).swapaxes(0, 1)[:, :, : columns.stop - first]
    return np.divide(z_p, p, out=np.zeros_like(p), where=p > 0)


def attention_bug(end, **switches):
    """A backward pass of attention over `end` that has these switches set."""
    return lambda do, a: (attention_dqkv(do, a[0], end, **switches),)


def attention_case(name, end, block, **bugs_of_the_mask):
    """Attention without dropout; wrong masks differ from case to case, other bugs do not."""
    return Case(
        f"attention, {name}",
        *passes(lambda qkv: attention(qkv, end, H, block=block), attention_backward),
        {"qkv": normal(N, 3 * C)},
        {
            "forget Δᵢ": attention_bug(end, delta=0),
            "sign of Δᵢ": attention_bug(end, delta=-1),
            "drop 1/√D": attention_bug(end, power=0),
            "1/√D twice": attention_bug(end, power=2),
            "dv without the transpose": attention_bug(end, right=False),
            "dq and dk swapped": attention_bug(end, swap=True),
            **{
                name.replace("_", " "): attention_bug(end, visible=visible)
                for name, visible in bugs_of_the_mask.items()
            },
        },
    )


def dropout_bug(z_of):
    """A backward pass whose keep factors z and z_dp are functions of the right ones."""

    def broken(do, arguments):
        z, z_dp = z_of(keep_factors(arguments[0], FOREST, **DROPPED))
        return (attention_dqkv(do, arguments[0], FOREST, z, z_dp=z_dp),)

    return broken


TAU = 3.0  # √D is 2.2
DROPPED = {"dropout": RATE, "seed": 3, "block": 4}
CAUSAL = np.tri(N, dtype=bool)
ATTENTION = [
    attention_case(
        "one sequence",
        ONE_SEQUENCE,
        4,
        sees_the_next_row=np.tri(N, k=1, dtype=bool),
        does_not_see_itself=np.tri(N, k=-1, dtype=bool),
    ),
    attention_case("one block", ONE_SEQUENCE, N),
    attention_case(
        "packed",
        PACKED,
        4,
        sees_past_the_end=CAUSAL,
        end_off_by_one=plain.visible_pairs(PACKED + 1),
        end_too_early=plain.visible_pairs(PACKED - 1),
    ),
    attention_case(
        "forest",
        FOREST,
        4,
        sees_past_the_end=CAUSAL,
        sees_its_own_segment_only=plain.visible_pairs(ends(*((n,) for n in (3, 2, 1, 2, 2, 1, 2)))),
        sees_siblings=plain.visible_pairs(ends((3, (5,), (2,)), (1, (2,)))),
    ),
    Case(
        "attention, another divisor",
        *passes(lambda qkv: attention(qkv, FOREST, H, block=4, divisor=TAU), attention_backward),
        {"qkv": normal(N, 3 * C)},
        {
            "scores divided by √D": attention_bug(FOREST, divisors=(D**0.5, TAU)),
            "dq and dk divided by √D": attention_bug(FOREST, divisors=(TAU, D**0.5)),
            "forget Δᵢ": attention_bug(FOREST, divisors=(TAU, TAU), delta=0),
        },
    ),
    Case(
        "attention, dropout",
        *passes(lambda qkv: attention(qkv, FOREST, H, **DROPPED), attention_backward),
        {"qkv": normal(N, 3 * C)},
        {
            "dropout forgotten": dropout_bug(lambda z: (1.0, None)),
            "dropout forgotten in dp": dropout_bug(lambda z: (z, 1.0)),
            "dropout forgotten in dv": dropout_bug(lambda z: (1.0, z)),
            "mask not rescaled": dropout_bug(lambda z: (1.0 * (z > 0), None)),
            "mask of another head": dropout_bug(lambda z: (np.roll(z, 1, 0), None)),
            "forget Δᵢ": lambda do, a: (
                attention_dqkv(do, a[0], FOREST, z=keep_factors(a[0], FOREST, **DROPPED), delta=0),
            ),
        },
    ),
]


# Cross-entropy.  Rows and targets repeat, some rows stand in no triple, weights differ.

ROWS = np.array([0, 2, 2, 2, 3, 4, 4, 7, 8, 9, 9, 9, 10, 11, 11, 12, 12])
TARGETS = np.array([5, 28, 0, 5, 5, 17, 17, 3, 1, 28, 2, 0, 11, 6, 19, 23, 5])
WEIGHTS = np.array([1, 1, 0.5, 2, 1, 0, 0.3, 1, 0, 1, 0.1, 0.7, 1, 1, 0.2, 1, 3])
M = len(ROWS)
SIZES["M"] = M


def cross_entropy_dlogits(arguments, weights=WEIGHTS, at_target=1):
    """∂L/∂logits (M, V) for every triple, with a switch for each part."""
    x, wte = arguments
    logits = x[ROWS] @ wte.T
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    p[np.arange(M), TARGETS] -= at_target
    return weights[:, None] * p


def overwritten_dx(dloss, arguments):
    """dx in which a row that stands in several triples counts once."""
    dx = np.zeros((N, C))
    dx[ROWS] = dloss * cross_entropy_dlogits(arguments) @ arguments[1]
    return dx


def cross_entropy_bug(rows=ROWS, factor=1.0, **switches):
    """A backward pass that has these switches set in both gradients."""

    def broken(dloss, arguments):
        dlogits = dloss * factor * cross_entropy_dlogits(arguments, **switches)
        dx = np.zeros((N, C))
        np.add.at(dx, rows, dlogits @ arguments[1])
        return dx, dlogits.T @ arguments[0][rows]

    return broken


def weighted_gradient(dloss, arguments):
    """dx and dwte; what the loss is multiplied by is in the weights."""
    x, wte = arguments
    dwte, weights = array_module(wte).zeros_like(wte), float(dloss) * WEIGHTS
    dx = cross_entropy_gradient(x, wte, ROWS, TARGETS, weights, dwte, chunk=5)[2]
    return dx, dwte


CROSS_ENTROPY = [
    Case(
        "cross_entropy",
        lambda x, wte: cross_entropy(x, wte, ROWS, TARGETS, WEIGHTS, chunk=5)[0],
        weighted_gradient,
        {"x": normal(N, C), "wte": normal(V, C, scale=0.5)},
        {
            "weights ignored": cross_entropy_bug(weights=np.ones(M)),
            "weights squared": cross_entropy_bug(weights=WEIGHTS**2),
            "mean for sum": cross_entropy_bug(weights=WEIGHTS / WEIGHTS.sum()),
            "forget the target": cross_entropy_bug(at_target=0),
            "sign of the target": cross_entropy_bug(at_target=-1),
            "sign": cross_entropy_bug(factor=-1.0),
            "shifted by one row": cross_entropy_bug(rows=(ROWS + 1) % N),
            "rows taken in order": cross_entropy_bug(rows=np.arange(M) % N),
            "forget the upstream gradient": lambda dloss, a: cross_entropy_bug()(1.0, a),
            "a repeated row counts once": lambda dloss, a: (overwritten_dx(dloss, a), None),
            "the last chunk only": lambda dloss, a: cross_entropy_bug(
                weights=WEIGHTS * (np.arange(M) >= 15)
            )(dloss, a),
        },
    )
]

CASES = (
    *LINEAR,
    *EMBEDDING,
    *LAYER_NORM,
    *GELU,
    *SOFTMAX,
    *DROPOUT,
    *LORA,
    *ATTENTION,
    *CROSS_ENTROPY,
)
