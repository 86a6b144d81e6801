"""Shapes in the comments of sampling and of the cache are those of the arrays."""

from pathlib import Path

import numpy as np
import pytest

from minigpt2.inference import kv_cache, sampling
from minigpt2.inference.generate import generate
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from tests.book.shapes import ShapeTracer, read_shapes

CONFIG = GPT2Config(vocab_size=23, n_positions=20, n_embd=12, n_layer=2, n_head=3)
SIZES = {"L": 2, "H": 3, "C": 12, "D": 4, "V": 23}


@pytest.mark.parametrize("module", [sampling, kv_cache])
def test_every_shape_in_a_comment_is_that_of_an_array(module):
    text = Path(module.__file__).read_text(encoding="utf-8")
    tracer = ShapeTracer(module.__file__, text, SIZES)
    options = sampling.Sampling(1.0, top_k=5, top_p=0.8, repetition_penalty=1.2)
    parameters = initialise(CONFIG, np.random.default_rng(0))

    def run():
        for prompts in ([[1, 2, 3]], [[1, 2, 3], [1, 2, 4, 5], [1, 2, 3]]):
            for chosen in (sampling.GREEDY, options):
                rng = np.random.default_rng(0)
                generate(parameters, prompts, stop=0, max_new_tokens=4, sampling=chosen, rng=rng)

    tracer.run(run)
    statements, fields, strays = read_shapes(text)
    lines = {statement.first for statement in statements}.union(strays)
    lines |= {line for shapes in fields.values() for line, _ in shapes.values()}
    assert tracer.faults == [] and lines - tracer.checked == set()
    assert len(lines) >= 10
