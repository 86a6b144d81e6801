"""Greedy generation by PyTorch: transformers' own, and the fastest loop that we can write.

The loop has a cache of fixed size, so that each step has the same shapes: its blocks are compiled,
and it is captured as a CUDA graph, which the host launches once a token.  Tokens come to the host
after each step, as they must where a sequence may end.
"""

import torch
from torch.nn.functional import gelu, scaled_dot_product_attention

from tests.benchmarks.peers.packed import NAMES, linear, norm
from tests.parity.reference import official, open_reference


class Generating:
    """What both have in common."""

    def __init__(self, folder, job, how):
        torch.set_num_threads(how.threads)
        torch.set_float32_matmul_precision("highest")
        self.device, self.job = "cuda" if how.on_gpu else "cpu", job
        self.model = open_reference(folder).to(self.device, getattr(torch, how.precision))
        self.prompts = torch.tensor(job.prompts, device=self.device)

    def memory(self):
        """The bytes of the GPU that PyTorch's tensors took at most."""
        return torch.cuda.max_memory_allocated()


class Transformers(Generating):
    """`generate` of transformers."""

    @torch.no_grad()
    def step(self):
        """Continue all prompts; return the new tokens of each."""
        new = self.job.new
        options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False}
        mask = torch.ones_like(self.prompts)
        out = self.model.generate(self.prompts, attention_mask=mask, pad_token_id=0, **options)
        return out[:, self.prompts.shape[1] :].tolist()


class StaticCache(Generating):
    """A loop over one compiled step with a cache of fixed size."""

    def __init__(self, folder, job, how, compiled=True):
        super().__init__(folder, job, how)
        p = {official(name): tensor.detach() for name, tensor in self.model.named_parameters()}
        config = job.config
        self._tables = p["wte.weight"], p["wpe.weight"], p["ln_f.weight"], p["ln_f.bias"]
        self._blocks = [
            {name: p[f"h.{layer}.{name}"] for name in NAMES} for layer in range(config.n_layer)
        ]
        heads, size = config.n_head, config.n_embd // config.n_head
        batch, length = len(job.prompts), len(job.prompts[0]) + job.new
        shape = config.n_layer, 2, batch, heads, length, size
        self._cache = torch.zeros(shape, dtype=self._tables[0].dtype, device=self.device)
        self._places = torch.arange(length, device=self.device)
        self._ids, self._position = self.prompts[:, -1:].clone(), self._places[:1].clone()
        self._block = torch.compile(block_of, dynamic=False) if compiled else block_of
        self._advance_once = self._captured() if how.on_gpu else self._advance

    @torch.no_grad()
    def _captured(self):
        """The step as a graph."""
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._advance()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._advance()
        return graph.replay

    def _advance(self):
        """From the last tokens and their place to the next ones."""
        self._ids.copy_(self._forward(self._ids, self._position, self._block))
        self._position.add_(1)

    def _forward(self, ids, positions, block):
        """The likeliest token after rows of ids (B, T) at positions (T,), which go to the cache."""
        wte, wpe, gamma, beta = self._tables
        x = wte[ids] + wpe[positions]
        hidden = self._places > positions[:, None]
        mask = torch.zeros_like(hidden, dtype=x.dtype).masked_fill(hidden, float("-inf"))
        for p, cache in zip(self._blocks, self._cache, strict=True):
            x = block(x, p, cache, positions, mask)
        return (norm(x[:, -1], gamma, beta) @ wte.T).argmax(-1, keepdim=True)

    @torch.no_grad()
    def step(self):
        """Continue all prompts; return the new tokens of each."""
        length = self.prompts.shape[1]
        self._ids.copy_(self._forward(self.prompts, self._places[:length], block_of))
        self._position.fill_(length)
        tokens = [self._ids.flatten().tolist()]
        for _ in range(self.job.new - 1):
            self._advance_once()
            tokens.append(self._ids.flatten().tolist())
        return [list(sequence) for sequence in zip(*tokens, strict=True)]


def block_of(x, p, cache, positions, mask):
    """A block for rows x (B, T, C), whose keys and values go to the cache."""
    batch, rows, _ = x.shape
    flat = norm(x, p["ln_1.weight"], p["ln_1.bias"]).flatten(0, 1)
    qkv = linear(flat, p, "attn.c_attn").view(batch, rows, 3, cache.shape[2], -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    cache[0].index_copy_(2, positions, k)
    cache[1].index_copy_(2, positions, v)
    o = scaled_dot_product_attention(q, cache[0], cache[1], attn_mask=mask)
    o = o.transpose(1, 2).reshape(batch * rows, -1)
    r = x.flatten(0, 1) + linear(o, p, "attn.c_proj")
    h = linear(norm(r, p["ln_2.weight"], p["ln_2.bias"]), p, "mlp.c_fc")
    return (r + linear(gelu(h, approximate="tanh"), p, "mlp.c_proj")).view(batch, rows, -1)
