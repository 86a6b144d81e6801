"""The strongest PyTorch script we can write for this job.

No padding: the sequences of a batch stand one after the other as rows, and only attention sees
them apart, by PyTorch's own fused kernel: in one call where all are of one length, else in one for
each.  Only rows that predict an answer's token meet the vocabulary.  AdamW is the fused one.
Compiled, what lies between two attentions is one graph for rows of any number.
"""

import torch
from torch.nn import functional

from tests.benchmarks.peers.optimiser import Learner
from tests.parity.reference import official, open_reference

EPS = 1e-5


class Packed(Learner):
    """GPT-2 written out on torch's functions."""

    def __init__(self, folder, job, how, compiled=False):
        model = open_reference(folder).to("cuda" if how.on_gpu else "cpu")
        self._p = {official(name): tensor for name, tensor in model.named_parameters()}
        super().__init__(self._p.values(), how, fused=True)
        self._config = job.config
        self._batches = iter(job.batches)
        wrap = (lambda f: torch.compile(f, dynamic=True)) if compiled else (lambda f: f)
        self._before, self._after = wrap(before_attention), wrap(after_attention)

    def step(self):
        """Take the next step; return its loss."""
        batch = [(torch.tensor(ids[:-1]), ids, prompt) for ids, prompt in next(self._batches)]
        return self.learn(lambda: self._loss(batch))

    def _loss(self, batch):
        p, lengths = self._p, [len(rows) for rows, _, _ in batch]
        positions = torch.cat([torch.arange(n) for n in lengths]).to(self.device)
        ids = torch.cat([rows for rows, _, _ in batch]).to(self.device)
        x = p["wte.weight"][ids] + p["wpe.weight"][positions]
        for layer in range(self._config.n_layer):
            own = {name: p[f"h.{layer}.{name}"] for name in NAMES}
            o = attend(self._before(x, own), lengths, self._config.n_head)
            x = self._after(x, o, own)
        start, chosen, targets = 0, [], []
        for n, (_, ids, prompt) in zip(lengths, batch, strict=True):
            chosen += range(start + prompt - 1, start + n)
            targets += ids[prompt:]
            start += n
        chosen, targets = (torch.tensor(part).to(self.device) for part in (chosen, targets))
        rows = norm(x[chosen], p["ln_f.weight"], p["ln_f.bias"])
        return functional.cross_entropy(rows @ p["wte.weight"].T, targets)


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


def attend(qkv, lengths, n_head):
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


def after_attention(x, o, p):
    """The rest of a block."""
    r = x + linear(o, p, "attn.c_proj")
    h = linear(norm(r, p["ln_2.weight"], p["ln_2.bias"]), p, "mlp.c_fc")
    return r + linear(functional.gelu(h, approximate="tanh"), p, "mlp.c_proj")
