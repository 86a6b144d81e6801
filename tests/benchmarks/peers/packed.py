"""The strongest PyTorch script we can write for this job.

No padding: the sequences of a batch stand one after the other as rows, and only attention sees
them apart, by PyTorch's own fused kernel for each.  Only rows that predict an answer's token meet
the vocabulary.  AdamW is the fused one.  Compiled, what lies between two attentions is one graph
for rows of any number.
"""

import torch
from torch.nn import functional

from tests.benchmarks.peers.jobs import CLIP
from tests.benchmarks.peers.optimiser import make_optimiser
from tests.parity.reference import official, open_reference

EPS = 1e-5


class Packed:
    """GPT-2 written out on torch's functions."""

    def __init__(self, folder, job, threads, compiled=False):
        torch.set_num_threads(threads)
        model = open_reference(folder)
        self._p = {official(name): tensor for name, tensor in model.named_parameters()}
        self._parameters = list(self._p.values())
        self._optimiser = make_optimiser(self._parameters, fused=True)
        self._config = job.config
        self._batches = iter(job.batches)
        wrap = (lambda f: torch.compile(f, dynamic=True)) if compiled else (lambda f: f)
        self._before, self._after = wrap(before_attention), wrap(after_attention)

    def step(self):
        """Take the next step; return its loss."""
        batch = [(torch.tensor(ids[:-1]), ids, prompt) for ids, prompt in next(self._batches)]
        self._optimiser.zero_grad()
        loss = self._loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, CLIP)
        self._optimiser.step()
        return loss.item()

    def _loss(self, batch):
        p, lengths = self._p, [len(rows) for rows, _, _ in batch]
        positions = torch.cat([torch.arange(n) for n in lengths])
        x = p["wte.weight"][torch.cat([rows for rows, _, _ in batch])] + p["wpe.weight"][positions]
        for layer in range(self._config.n_layer):
            own = {name: p[f"h.{layer}.{name}"] for name in NAMES}
            o = attend(self._before(x, own), lengths, self._config.n_head)
            x = self._after(x, o, own)
        start, chosen, targets = 0, [], []
        for n, (_, ids, prompt) in zip(lengths, batch, strict=True):
            chosen += range(start + prompt - 1, start + n)
            targets += ids[prompt:]
            start += n
        rows = norm(x[torch.tensor(chosen)], p["ln_f.weight"], p["ln_f.bias"])
        return functional.cross_entropy(rows @ p["wte.weight"].T, torch.tensor(targets))


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
