"""One block and the whole model, and the mistakes that a person would make in their backward.

The loss of the whole model is that of two micro-batches, so a gradient that is written where it
should be added is wrong.  Each of them is a forest: a prefix with branches below branches, packed
with a second root; rows repeat among the triples, and weights differ.

The broken backward passes walk back through what each op saved by a list of links of their own.
They return None for a gradient that comes out right all the same.
"""

from functools import partial

import numpy as np

from minigpt2.data.forest import Segment, lay_out
from minigpt2.model.block import block, block_backward
from minigpt2.model.config import GPT2Config
from minigpt2.model.gpt2 import gpt2, gpt2_backward, loss_and_gradients, loss_of
from minigpt2.model.gradients import Gradients, gradients_of
from minigpt2.model.parameters import Parameters, tensor_shapes
from minigpt2.ops.attention import attention_backward
from minigpt2.ops.cross_entropy import cross_entropy, cross_entropy_gradient
from minigpt2.ops.dropout import Saved as Dropped
from minigpt2.ops.dropout import dropout_backward
from minigpt2.ops.embedding import embedding_backward
from minigpt2.ops.gelu import gelu_backward
from minigpt2.ops.layer_norm import layer_norm_backward
from minigpt2.ops.linear import linear_backward
from tests.gradients import Case

N, H, D, V, T, L = 17, 2, 5, 23, 11, 2
C, F = H * D, 4 * H * D
SIZES = {"N": N, "H": H, "D": D, "C": C, "F": F, "V": V, "T": T, "L": L}
CONFIG = GPT2Config(vocab_size=V, n_positions=T, n_embd=C, n_layer=L, n_head=H)
SHAPES = tensor_shapes(CONFIG)

FIRST = lay_out(
    [
        Segment(
            [3, 7, 7, 1],
            [0, 0.5, 0, 1],
            [
                Segment(
                    [5, 5, 11],
                    [1, 0, 0.3],
                    [Segment([2, 22], [1, 2]), Segment([8, 12], [1.5, 1])],
                ),
                Segment([6, 17], [0.7, 1]),
            ],
        ),
        Segment([1, 13], [0, 0], [Segment([9, 20, 22], [1, 0, 1]), Segment([9, 14], [1, 1])]),
        Segment([21, 3, 2], [0, 0.2, 1]),
    ]
)
SECOND = lay_out(
    [
        Segment(
            [12, 3, 18],
            [0, 0, 0],
            [
                Segment([3, 3], [0, 1], [Segment([16, 22], [1, 1]), Segment([1, 0], [3, 1])]),
                Segment([7, 10, 15, 15, 22], [1, 1, 0.5, 1, 1]),
            ],
        ),
        Segment([4, 8, 4, 8, 4, 8, 22], [0, 0, 0, 1, 1, 1, 1]),
    ]
)
BATCHES = (FIRST, SECOND)


def drawn(name, shape, rng):
    """Random values of a tensor, of a size at which every op is curved; never zeros or ones."""
    if len(shape) == 2:
        return rng.standard_normal(shape) * (1 if name.startswith("w") else shape[0] ** -0.5)
    return (1.0 if "ln_" in name and "weight" in name else 0.0) + 0.5 * rng.standard_normal(shape)


def makers(shapes):
    """How each tensor is drawn, by name."""
    return {name: partial(drawn, name, shape) for name, shape in shapes.items()}


def parameters_of(tensors):
    """The Parameters that hold these tensors, in the layout's order."""
    return Parameters(CONFIG, np.concatenate([tensor.ravel() for tensor in tensors]))


def random_parameters(seed=0, dtype=np.float64):
    """Parameters drawn as the cases draw them."""
    rng = np.random.default_rng(seed)
    drawn_ones = parameters_of([make(rng) for make in makers(SHAPES).values()])
    return Parameters(CONFIG, drawn_ones.flat.astype(dtype))


def remembered(backward):
    """The backward pass, which computes once for the same arguments."""
    known = {}

    def once(dy, arguments):
        key = tuple(np.asarray(one).tobytes() for one in (dy, *arguments))
        if key not in known:
            known[key] = backward(dy, arguments)
        return known[key]

    return once


def or_none(right, broken):
    """The broken gradients, with None for those that are right."""
    norm = np.linalg.norm
    pairs = zip(right, broken, strict=True)
    return tuple(None if norm(b - r) <= 1e-9 * norm(r) else b for r, b in pairs)


# What a person can get wrong in a block.


def through(dy, links, d):
    """Go back through the links (name or None, backward, saved) of a branch."""
    for name, backward, saved in links:
        results = backward(dy, saved)
        dy, *gradients = results if isinstance(results, tuple) else (results,)
        for kind, gradient in zip(("bias", "weight"), gradients[::-1], strict=False):
            if gradient is not None:
                d[f"{name}.{kind}"][...] += gradient
    return dy


def broken_block(
    dy, saved, d, streams=(1, 1), branches=(1, 1), masks=("attn_drop", "mlp_drop"), swap=False
):
    """block_backward; each pair of switches is for the attention's branch and for the MLP's."""
    masks = [(None, dropout_backward, getattr(saved, mask)) if mask else None for mask in masks]
    attention = [
        ("attn.c_proj", linear_backward, saved.attn_proj.linear),
        (None, attention_backward, saved.attn),
        ("attn.c_attn", linear_backward, saved.c_attn.linear),
        ("ln_2" if swap else "ln_1", layer_norm_backward, saved.ln_1),
    ]
    mlp = [
        ("mlp.c_proj", linear_backward, saved.mlp_proj.linear),
        ("mlp.c_fc", gelu_backward, saved.act),
        ("mlp.c_fc", linear_backward, saved.c_fc.linear),
        ("ln_1" if swap else "ln_2", layer_norm_backward, saved.ln_2),
    ]
    for place, links in ((1, mlp), (0, attention)):
        branch = through(dy, [link for link in (masks[place], *links) if link], d)
        dy = streams[place] * dy + branches[place] * branch
    return dy


NAMES = tuple(name.removeprefix("h.0.") for name in SHAPES if name.startswith("h.0."))
RATE = 0.3


def run_block(x, *tensors):
    """One block over the first forest, with dropout."""
    p = dict(zip(NAMES, tensors, strict=True))
    return block(x, FIRST.end, p, n_head=H, drop=RATE, seed=7)


def block_gradients(backward, dy, arguments):
    """dx and the gradients of a block's tensors."""
    d = {name: np.zeros_like(t) for name, t in zip(NAMES, arguments[1:], strict=True)}
    dx = backward(dy, run_block(*arguments)[1], Gradients(d))
    return (dx, *d.values())


def block_bug(**switches):
    """The backward pass of a block that has these switches set."""

    def broken(dy, arguments):
        right = block_gradients(block_backward, dy, arguments)
        wrong = block_gradients(partial(broken_block, **switches), dy, arguments)
        return or_none(right, wrong)

    return remembered(broken)


BLOCK = Case(
    "block",
    lambda *a: run_block(*a)[0],
    partial(block_gradients, block_backward),
    {
        "x": lambda rng: rng.standard_normal((N, C)),
        **makers({name: SHAPES[f"h.0.{name}"] for name in NAMES}),
    },
    {
        "stream forgotten past attention": block_bug(streams=(0, 1)),
        "stream forgotten past the MLP": block_bug(streams=(1, 0)),
        "attention does not reach x": block_bug(branches=(0, 1)),
        "the MLP does not reach r": block_bug(branches=(1, 0)),
        "stream counted twice": block_bug(streams=(1, 2)),
        "mask of attention's branch forgotten": block_bug(masks=(None, "mlp_drop")),
        "mask of the MLP's branch forgotten": block_bug(masks=("attn_drop", None)),
        "masks swapped": block_bug(masks=("mlp_drop", "attn_drop")),
        "normalisations swapped": block_bug(swap=True),
    },
    linear_in=("mlp.c_proj.weight", "mlp.c_proj.bias"),
)


# What a person can get wrong in the whole model.


def loss(*tensors):
    """The weighted cross-entropy of both micro-batches."""
    return sum(loss_of(parameters_of(tensors), batch)[0] for batch in BATCHES)


@remembered
def gradients(dy, tensors):
    """The model's own gradients of both micro-batches."""
    parameters = parameters_of(tensors)
    total = gradients_of(parameters)
    for batch in BATCHES:
        loss_and_gradients(parameters, batch, total)
    return tuple(dy * view for view in total.views.values())


def broken_walk(
    parameters,
    batch,
    total,
    shares=(1, 1),
    layers=range(L)[::-1],
    names=range(L),
    ln_f=True,
    written=False,
    weighted=True,
    row=0,
    ln_f_swapped=False,
    positions=True,
    **switches,
):
    """loss_and_gradients with switches; `shares` are the embedding's and the projection's."""
    own = gradients_of(parameters)
    h, saved = gpt2(parameters, batch)
    weights = batch.weights if weighted else np.ones_like(batch.weights)
    triples = (batch.rows + row) % N, batch.targets, weights
    dwte = np.zeros_like(own["wte.weight"])
    dx = cross_entropy_gradient(h, parameters["wte.weight"], *triples, dwte)[2]
    if ln_f:
        dx, *dwb = layer_norm_backward(dx, saved.ln_f)
        for name, one in zip(("weight", "bias"), dwb[::-1] if ln_f_swapped else dwb, strict=True):
            own[f"ln_f.{name}"][...] += one
    for layer in layers:
        dx = broken_block(dx, saved.blocks[layer], own.block(names[layer]), **switches)
    table, dwpe = np.zeros_like(own["wte.weight"]), np.zeros_like(own["wpe.weight"])
    embedding_backward(dx, saved.embedding, table, dwpe)
    own["wte.weight"][...] += shares[0] * table + shares[1] * dwte
    own["wpe.weight"][...] += dwpe if positions else np.roll(dwpe, 1, 0)
    total.flat[:] = own.flat if written else total.flat + own.flat


def gpt2_bug(**switches):
    """The backward pass of the whole model that has these switches set."""

    def broken(dy, tensors):
        parameters = parameters_of(tensors)
        total = gradients_of(parameters)
        for batch in BATCHES:
            broken_walk(parameters, batch, total, **switches)
        return or_none(gradients(dy, tensors), [dy * view for view in total.views.values()])

    return remembered(broken)


GPT2 = Case(
    "gpt2",
    loss,
    gradients,
    makers(SHAPES),
    {
        "wte: only the embedding's share": gpt2_bug(shares=(1, 0)),
        "wte: only the projection's share": gpt2_bug(shares=(0, 1)),
        "wte: the embedding's share twice": gpt2_bug(shares=(2, 1)),
        "wpe: positions count from one": gpt2_bug(positions=False),
        "stream forgotten past attention": gpt2_bug(streams=(0, 1)),
        "stream forgotten past the MLP": gpt2_bug(streams=(1, 0)),
        "attention does not reach the stream": gpt2_bug(branches=(0, 1)),
        "the MLP does not reach the stream": gpt2_bug(branches=(1, 0)),
        "written instead of added": gpt2_bug(written=True),
        "the last block skipped": gpt2_bug(layers=range(L - 1)[::-1]),
        "the first block skipped": gpt2_bug(layers=range(1, L)[::-1]),
        "blocks walked in forward order": gpt2_bug(layers=range(L)),
        "blocks' names swapped": gpt2_bug(names=range(L)[::-1]),
        "the last normalisation skipped": gpt2_bug(ln_f=False),
        "γ and β of the last normalisation swapped": gpt2_bug(ln_f_swapped=True),
        "weights of the triples ignored": gpt2_bug(weighted=False),
        "rows of the triples off by one": gpt2_bug(row=1),
    },
)


# Dropout and recomputation.

FIXED = random_parameters(seed=1)
FEW = ("wte.weight", "wpe.weight", "h.0.attn.c_attn.weight", "h.1.mlp.c_fc.weight")


def with_dropout(tensors, seed=5):
    """The parameters, of which a few are given, and the forward pass with dropout and recompute."""
    given = dict(zip(FEW, tensors, strict=True))
    parameters = parameters_of([given.get(name, FIXED[name]) for name in SHAPES])
    h, saved = gpt2(parameters, FIRST, drop=RATE, rng=np.random.default_rng(seed), recompute=True)
    return parameters, h, saved


def dropout_loss(*tensors):
    """The loss of the first forest with dropout."""
    parameters, h, _ = with_dropout(tensors)
    triples = FIRST.rows, FIRST.targets, FIRST.weights
    return cross_entropy(h, parameters["wte.weight"], *triples)[0]


def dropout_gradients(dy, tensors, change=lambda saved: saved):
    """Its gradients, after `change` has had its way with what was saved."""
    parameters, h, saved = with_dropout(tensors)
    triples = FIRST.rows, FIRST.targets, FIRST.weights
    total = gradients_of(parameters)
    wte, (dwte, _) = parameters["wte.weight"], total.claim("wte.weight")
    dh = cross_entropy_gradient(h, wte, *triples, dwte)[2]
    gpt2_backward(dh, change(saved), total)
    return tuple(dy * total[name] for name in FEW)


def dropout_bug(change):
    """The backward pass on something else than what was saved."""
    return remembered(
        lambda dy, a: or_none(dropout_gradients(dy, a), dropout_gradients(dy, a, change))
    )


def checkpoint_bug(change):
    """Blocks that have saved something else: `change` of a block's Checkpoint."""
    return dropout_bug(lambda saved: saved._replace(blocks=[change(c) for c in saved.blocks]))


NO_MASK = Dropped(None)


DROPOUT = Case(
    "gpt2, dropout",
    dropout_loss,
    dropout_gradients,
    makers({name: SHAPES[name] for name in FEW}),
    {
        "new masks of probabilities": checkpoint_bug(
            lambda c: c._replace(attn=c.attn._replace(seed=c.attn.seed + 1))
        ),
        "masks of the branches forgotten": checkpoint_bug(
            lambda c: c._replace(attn_drop=NO_MASK, mlp_drop=NO_MASK)
        ),
        "the MLP's branch recomputed from x": checkpoint_bug(lambda c: c._replace(r=c.x)),
        "attention's branch recomputed from r": checkpoint_bug(lambda c: c._replace(x=c.r)),
        "mask of the embedding forgotten": dropout_bug(
            lambda saved: saved._replace(drop=saved.drop._replace(z=None))
        ),
    },
)

CASES = (BLOCK, GPT2, DROPOUT)
