"""Folders of adapters, and the model that they belong to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from minigpt2.adapter_weights import checksum_of, save_adapters
from minigpt2.model.adapters import LoRA, Origin, with_adapters
from minigpt2.weights import load_parameters
from tests.inputs.models import folder, little
from tests.inputs.row import Row, refused, works

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
ANSWER = "answer hi --model m --max-new-tokens 1"
NAME = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"


def adapters(path: Path) -> None:
    """Write adapters of the model in the folder `base`."""
    parameters = load_parameters(folder())
    origin = Origin("base", checksum_of(folder(), parameters))
    path.mkdir()
    rng = np.random.default_rng(0)
    save_adapters(with_adapters(parameters, LoRA(2, 4.0), rng, origin), path)


def with_fields(**fields: Any) -> Callable[[Path], None]:
    """Adapters whose adapter_config.json has other values."""

    def write(path: Path) -> None:
        adapters(path)
        content = {**json.loads((path / CONFIG).read_text()), **fields}
        (path / CONFIG).write_text(json.dumps(content))

    return write


def with_contents(name: str, content: bytes | None) -> Callable[[Path], None]:
    """Adapters in which a file has other contents; None takes it out."""

    def write(path: Path) -> None:
        adapters(path)
        (path / name).unlink()
        if content is not None:
            (path / name).write_bytes(content)

    return write


def with_tensors(**changes: Any) -> Callable[[Path], None]:
    """Adapters with other tensors; None takes one out."""

    def write(path: Path) -> None:
        adapters(path)
        stored = {**load_file(path / TENSORS), **changes}
        save_file({n: t for n, t in stored.items() if t is not None}, path / TENSORS)

    return write


def bad(name: str, make: Callable[[Path], None], words: str) -> Row:
    """Adapters that are refused."""
    return refused(name, ANSWER, words, {"m": make, "base": little})


ROWS = [
    works("adapters", ANSWER, "", {"m": adapters, "base": little}),
    works("adapters of peft", ANSWER, "", {"m": with_fields(use_dora=False), "base": little}),
    refused("adapters without their model", ANSWER, "m has adapters of base", {"m": adapters}),
    bad(
        "adapters: the model itself", with_fields(base_model_name_or_path="m"), "belongs to itself"
    ),
    bad("adapters: a model of the web", with_fields(base_model_name_or_path="http://x/y"), "name"),
    bad("adapters: a folder above", with_fields(base_model_name_or_path="../base"), "name"),
    bad("adapters: no name of a model", with_fields(base_model_name_or_path=7), "name"),
    bad("adapters: another kind", with_fields(peft_type="IA3"), "only LORA is known"),
    bad("adapters: DoRA", with_fields(use_dora=True), "use_dora"),
    bad("adapters: a huge rank", with_fields(r=10**9), "shape"),
    bad("adapters: an infinite α", with_fields(lora_alpha=float("inf")), "lora_alpha"),
    bad("adapters: a list for the rank", with_fields(r=[8]), "r must be"),
    bad("adapters: no JSON", with_contents(CONFIG, b"{"), CONFIG),
    bad("adapters: an array", with_contents(CONFIG, b"[]"), CONFIG),
    bad("adapters: no tensors", with_contents(TENSORS, None), TENSORS),
    bad("adapters: cut tensors", with_contents(TENSORS, b"\x08\0\0\0\0\0\0\0{}"), TENSORS),
    bad("adapters: a pickle", with_contents(TENSORS, b"PK\x03\x04" * 9), "pickle"),
    bad("adapters: NaN", with_tensors(**{NAME: np.full((2, 16), np.nan)}), "not finite"),
    bad("adapters: another shape", with_tensors(**{NAME: np.ones((3, 16))}), "shape"),
    bad("adapters: one is missing", with_tensors(**{NAME: None}), "no tensor"),
    bad("adapters: of the table", with_tensors(**{"wte.lora_A.weight": np.ones(2)}), "wte.lora_A"),
]
