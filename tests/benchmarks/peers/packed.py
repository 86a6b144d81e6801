"""The strongest PyTorch script we can write for this job.

No padding: the sequences of a batch stand one after the other as rows, and only attention sees
them apart, by PyTorch's own fused kernel: in one call where all are of one length, else in one for
each, or on a GPU by the kernel of flash attention that takes all lengths at once.  Only rows that
predict an answer's token meet the vocabulary.  AdamW is the fused one.  Compiled, a block and the
loss are one graph each where all batches are of one shape; else what lies between two attentions
is one for rows of any number.
"""

from typing import NamedTuple

import torch
from torch.nn import functional

from tests.benchmarks.peers.optimiser import Learner
from tests.parity.reference import official, open_reference

EPS = 1e-5


class Rows(NamedTuple):
    """A batch as tensors, and the lengths of its sequences."""

    ids: torch.Tensor  # (N,)
    positions: torch.Tensor  # (N,)
    chosen: torch.Tensor  # (M,) rows that predict a token of an answer
    targets: torch.Tensor  # (M,)
    starts: torch.Tensor  # (B + 1,) of the sequences, and N
    lengths: list[int]


class Packed(Learner):
    """GPT-2 written out on torch's functions."""

    def __init__(self, folder, job, how, compiled=False, varlen=False):
        model = open_reference(folder).to("cuda" if how.on_gpu else "cpu")
        p = {official(name): tensor for name, tensor in model.named_parameters()}
        self._blocks = [
            {name: p[f"h.{layer}.{name}"] for name in NAMES} for layer in range(job.config.n_layer)
        ]
        self._p, self._heads = p, job.config.n_head
        super().__init__(p.values(), how, fused=True, job=job)
        self._batches = iter([self._prepared(batch) for batch in job.batches])
        same = len({tuple(len(ids) for ids, _ in batch) for batch in job.batches}) == 1
        self._attend = attend_at_once if varlen and how.on_gpu else attend
        self._before, self._after, self._loss_of = before_attention, after_attention, loss_of
        self._block = self._block_of
        if compiled and same and self._attend is attend:
            self._block, self._loss_of = (torch.compile(f) for f in (self._block_of, loss_of))
        elif compiled:
            self._before, self._after = (
                torch.compile(f, dynamic=True) for f in (before_attention, after_attention)
            )

    def step(self):
        """Take the next step; return its loss."""
        *tensors, lengths = next(self._batches)
        rows = Rows(*map(self.fetch, tensors), lengths)
        return self.learn(lambda: self._loss(rows))

    def _prepared(self, batch):
        """A batch as it is before it goes to the device."""
        *tensors, lengths = packed(batch)
        return Rows(*map(self.on_device, tensors), lengths)

    def _loss(self, rows):
        wte = self._p["wte.weight"]
        x = wte[rows.ids] + self._p["wpe.weight"][rows.positions]
        for p in self._blocks:
            x = self._block(x, p, rows.starts, rows.lengths)
        final = self._p["ln_f.weight"], self._p["ln_f.bias"]
        return self._loss_of(x, rows.chosen, rows.targets, wte, *final)

    def _block_of(self, x, p, starts, lengths):
        """A block."""
        o = self._attend(self._before(x, p), starts, lengths, self._heads)
        return self._after(x, o, p)


def packed(batch):
    """A batch as rows, one sequence after the other; the last token of each has no row."""
    lengths = [len(ids) - 1 for ids, _ in batch]
    starts = torch.tensor([0, *lengths]).cumsum(0)
    chosen = [
        torch.arange(start + prompt - 1, start + n)
        for start, n, (_, prompt) in zip(starts.tolist(), lengths, batch, strict=False)
    ]
    return Rows(
        ids=torch.tensor([token for ids, _ in batch for token in ids[:-1]]),
        positions=torch.cat([torch.arange(n) for n in lengths]),
        chosen=torch.cat(chosen),
        targets=torch.tensor([token for ids, prompt in batch for token in ids[prompt:]]),
        starts=starts.int(),
        lengths=lengths,
    )


NAMES = tuple(
    f"{layer}.{kind}"
    for layer in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    for kind in ("weight", "bias")
)


def norm(x, gamma, beta):
    """Layer normalisation of rows."""
    return functional.layer_norm(x, (x.shape[-1],), gamma, beta, EPS)


def linear(x, p, name):
    """A linear map with the official weights, [in, out]."""
    return torch.addmm(p[f"{name}.bias"], x, p[f"{name}.weight"])


def before_attention(x, p):
    """Queries, keys and values of all rows."""
    return linear(norm(x, p["ln_1.weight"], p["ln_1.bias"]), p, "attn.c_attn")


def attend(qkv, starts, lengths, n_head):
    """Causal attention of each sequence by itself."""
    if len(set(lengths)) == 1:
        parts = qkv.view(len(lengths), lengths[0], 3, n_head, -1).permute(2, 0, 3, 1, 4)
        o = functional.scaled_dot_product_attention(*parts, is_causal=True)
        return o.transpose(1, 2).reshape(len(qkv), -1)
    outs = []
    for part in qkv.split(lengths):
        q, k, v = (one.reshape(len(part), n_head, -1).transpose(0, 1) for one in part.chunk(3, 1))
        o = functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)
        outs.append(o[0].transpose(0, 1).reshape(len(part), -1))
    return torch.cat(outs)


def attend_at_once(qkv, starts, lengths, n_head):
    """The same by one call of flash attention, which reads where each sequence starts.

    torch.nn.attention.varlen calls the same function; its signature changed from version to
    version.  It takes numbers of 16 bits alone.
    """
    q, k, v = qkv.view(len(qkv), 3, n_head, -1).unbind(1)
    longest = max(lengths)
    where = starts, starts, longest, longest
    return torch.ops.aten._flash_attention_forward(q, k, v, *where, 0.0, True, False)[0].flatten(1)


def after_attention(x, o, p):
    """The rest of a block."""
    r = x + linear(o, p, "attn.c_proj")
    h = linear(norm(r, p["ln_2.weight"], p["ln_2.bias"]), p, "mlp.c_fc")
    return r + linear(functional.gelu(h, approximate="tanh"), p, "mlp.c_proj")


def loss_of(x, chosen, targets, wte, gamma, beta):
    """The mean loss of the chosen rows."""
    rows = norm(x[chosen], gamma, beta)
    return functional.cross_entropy(rows @ wte.T, targets)
