"""Decoding compared with the reference and with bare products: `make bench-decode`.

A prompt is continued greedily with a key/value cache, by this project and by transformers'
`generate`, from the same random weights, in turns.  The roof is the same weight matrices, once
each for a token, multiplied with a vector by NumPy and nothing else.  Each round gives a ratio,
and what counts are the medians.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from rich.console import Console
from rich.progress import track

from minigpt2.inference.generate import generate
from minigpt2.model.initialisation import initialise
from minigpt2.weights import save_parameters
from tests.benchmarks.work import MODELS

BOUNDS = {"speed beside the reference": 2.0, "share of the roof": 0.85}


def decode_ours(parameters, prompt, tokens):
    """Seconds a token, and the tokens."""
    started = perf_counter()
    (ids,) = generate(parameters, [prompt], stop=-1, max_new_tokens=tokens)
    return (perf_counter() - started) / tokens, ids


def decode_reference(model, prompt, tokens):
    """The same by transformers."""
    import torch

    given = torch.tensor([prompt])
    started = perf_counter()
    with torch.no_grad():
        out = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=0,
        )
    return (perf_counter() - started) / tokens, out[0, len(prompt) :].tolist()


def bare_products(parameters, tokens):
    """Seconds a token that the matrix-vector products alone take."""
    config = parameters.config
    names = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    weights = [parameters.block(i)[f"{n}.weight"] for i in range(config.n_layer) for n in names]
    vectors = {w.shape[0]: np.ones((1, w.shape[0]), np.float32) for w in weights}
    last, wte = np.ones((1, config.n_embd), np.float32), parameters["wte.weight"].T
    started = perf_counter()
    for _ in range(tokens):
        for w in weights:
            vectors[w.shape[0]] @ w
        last @ wte
    return (perf_counter() - started) / tokens


def main():
    """Measure, and print what was found beside the aims."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="gpt2", choices=MODELS)
    parser.add_argument("--prompt", type=int, default=16, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=100, help="tokens to add")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write all times here")
    options = parser.parse_args()
    from tests.parity.reference import open_reference

    config = MODELS[options.model]
    rng = np.random.default_rng(0)
    parameters = initialise(config, rng)
    prompt = rng.integers(config.vocab_size, size=options.prompt).tolist()
    with tempfile.TemporaryDirectory() as folder:
        save_parameters(parameters, Path(folder))
        model = open_reference(folder)
    times = {"ours": [], "reference": [], "roof": []}
    for number in track(range(options.rounds + 1), "in turns", transient=True):
        mine, ids = decode_ours(parameters, prompt, options.tokens)
        other, their_ids = decode_reference(model, prompt, options.tokens)
        roof = bare_products(parameters, options.tokens)
        if ids != their_ids:
            raise SystemExit("the two do not continue the prompt in the same way")
        if number:  # the first round warms up
            for name, seconds in zip(times, (mine, other, roof), strict=True):
                times[name].append(seconds)
    console = Console(width=100)
    console.print(f"{options.model}, {options.prompt} tokens of prompt, {options.tokens} added")
    for name, seconds in times.items():
        console.print(f"  {name:<10} {1 / median(seconds):7.1f} tokens/s")
    pairs = zip(times["ours"], times["reference"], times["roof"], strict=True)
    ratios = [(other / mine, roof / mine) for mine, other, roof in pairs]
    found = dict(zip(BOUNDS, map(median, zip(*ratios, strict=True)), strict=True))
    for name, least in BOUNDS.items():
        mark = "" if found[name] >= least else "  not reached"
        console.print(f"  {name:<28} {found[name]:5.2f}  aim {least}{mark}")
    if options.json:
        options.json.write_text(json.dumps({"times": times, **found}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
