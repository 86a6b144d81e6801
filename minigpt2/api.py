"""API: the model from Python.

    import minigpt2

    model = minigpt2.GPT2.from_pretrained("gpt2")
    print(model.generate("The capital of France", max_new_tokens=20))

`import minigpt2` loads this module when one of its names is first used.  Wrong arguments raise
`minigpt2.UserError`, a ValueError, with one sentence that says what is wrong.
"""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from minigpt2.backend import Array, array_module, to_host
from minigpt2.checked import checked
from minigpt2.data.batches import batch_of
from minigpt2.data.examples import encode
from minigpt2.data.records import Record
from minigpt2.data.template import ALPACA, Template
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.device.devices import Device, open_device
from minigpt2.errors import UserError
from minigpt2.inference.answers import answer_questions, encode_start
from minigpt2.inference.generate import generate
from minigpt2.inference.model import Model, open_model, random_model, save_model
from minigpt2.inference.sampling import Sampling
from minigpt2.model.batch import Batch
from minigpt2.model.config import GPT2Config
from minigpt2.model.gpt2 import gpt2, loss_and_gradients, loss_of
from minigpt2.model.gradients import gradients_of
from minigpt2.outputs import exists
from minigpt2.parallel import matmul
from minigpt2.terminal import note
from minigpt2.wording import plural

Pairs = Iterable[tuple[str, str]]  # questions with their answers
DECODING: dict[str, Any] = {"max_new_tokens": int, **get_type_hints(Sampling), "seed": int}


class GPT2:
    """A GPT-2 with its tokenizer.

    `config` has its shape, `parameters` its tensors by official name, `tokenizer.encode` and
    `tokenizer.decode` turn text into ids and back, `template` is the one it was tuned with.
    """

    def __init__(self, model: Model):
        self._model = model

    @classmethod
    def from_pretrained(cls, name: str | Path, device: Device = "auto") -> "GPT2":
        """Open a model: a name (tiny, gpt2, gpt2-medium, ...), a model's folder, or a run's.

        `device` is cpu, cuda, emulated or auto.  Raises UserError if there is no such model, or
        the device cannot be used.
        """
        values = checked(
            {"name": str, "device": Device}, {"name": name, "device": device}, "from_pretrained"
        )
        return cls(open_model(values["name"], open_device(values["device"]), warn=note))

    @classmethod
    def from_scratch(cls, name: str | Path, seed: int = 0, device: Device = "auto") -> "GPT2":
        """Return a model of the shape of `name` with random weights."""
        types = {"name": str, "seed": int, "device": Device}
        values = checked(types, {"name": name, "seed": seed, "device": device}, "from_scratch")
        if values["seed"] < 0:
            raise UserError(f"seed must be at least 0, not {seed}")
        model = random_model(values["name"], np.random.default_rng(values["seed"]))
        parameters = model.parameters.on(open_device(values["device"]))
        return cls(model._replace(parameters=parameters))

    @property
    def config(self) -> GPT2Config:
        """The shape of the model."""
        return self._model.parameters.config

    @property
    def parameters(self) -> "Tensors":
        """The tensors by official name, such as "h.0.attn.c_attn.weight"; writing changes them."""
        return Tensors(self._model.parameters.views)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        return self._model.tokenizer

    @property
    def template(self) -> Template | None:
        """The template of its prompts; None unless the model was tuned with one."""
        return self._model.template

    def __repr__(self) -> str:
        config = self.config
        return (
            f"GPT2({plural(config.n_parameters, 'parameter')}, context {config.n_positions}, "
            f"vocabulary {config.vocab_size:,})"
        )

    def generate(self, prompt: str, **decoding: Any) -> str:
        """Return how the model continues a text.

        Args, all by name: max_new_tokens (100), temperature (0.8; 0 is greedy), top_k, top_p,
        repetition_penalty, seed (0).
        """
        checked({"prompt": str}, {"prompt": prompt}, "generate")
        values = checked(
            DECODING, {"max_new_tokens": 100, "temperature": 0.8, **decoding}, "generate"
        )
        limit, sampling, rng = split_decoding(values)
        (new,) = generate(
            self._model.parameters,
            [encode_start(prompt, self._model)],
            stop=self.tokenizer.end_of_text,
            max_new_tokens=limit,
            sampling=sampling,
            rng=rng,
        )
        return self.tokenizer.decode(new)

    def answer(self, question: str, input: str = "", **decoding: Any) -> str:
        """Return the model's answer to a question, in the template that it was tuned with.

        `input` is a text that the question is about.  Args by name: max_new_tokens (64),
        temperature (0), top_k, top_p, repetition_penalty, seed (0).
        """
        texts = {"question": question, "input": input}
        checked({"question": str, "input": str}, texts, "answer")
        values = checked(DECODING, {"max_new_tokens": 64, **decoding}, "answer")
        limit, sampling, rng = split_decoding(values)
        (text,) = answer_questions(
            self._model,
            [Record(question, input, "")],
            max_new_tokens=limit,
            sampling=sampling,
            rng=rng,
            warn=note,
        )
        return text

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Return the logits (T, V) of a sequence of T ids."""
        self._check_ids(ids)
        n, nothing = len(ids), np.empty(0, np.int64)
        batch = Batch(
            np.array(ids, np.int64), np.arange(n), np.full(n, n), nothing, nothing, nothing
        )
        h, _ = gpt2(self._model.parameters, batch, backward=False)
        (flat,) = to_host(matmul(h, self._model.parameters["wte.weight"].T))
        return flat.reshape(n, -1)

    def loss(self, pairs: Pairs) -> float:
        """Return the loss of answers to questions: the mean nll of a token, prompts masked."""
        return float(loss_of(self._model.parameters, self._batch(pairs))[0])

    def gradients(self, pairs: Pairs) -> tuple[float, dict[str, Array]]:
        """Return the loss of answers to questions and its gradient, by tensor name."""
        gradients = gradients_of(self._model.parameters)
        loss, _ = loss_and_gradients(self._model.parameters, self._batch(pairs), gradients)
        gradients.complete()
        return float(loss), dict(gradients.views)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model in the official layout, which transformers opens, too."""
        path = checked({"folder": Path}, {"folder": folder}, "save_pretrained")["folder"]
        if exists(path):
            raise UserError(f"{path} exists already: choose another folder, or move it")
        broken = [name for name, tensor in self.parameters.items() if not is_finite(tensor)]
        if broken:
            raise UserError(f"{broken[0]} holds numbers that are not finite: nothing is saved")
        save_model(path, self._model)

    def _batch(self, pairs: Pairs) -> Batch:
        """Return questions and answers as a batch whose weights sum to 1."""
        pairs = list(pairs) if isinstance(pairs, Iterable) else []
        if not pairs:
            raise UserError("there is no question: pass a list of (question, answer)")
        for pair in pairs:
            texts = pair if isinstance(pair, tuple | list) else []
            if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
                raise UserError(f"pairs must be (question, answer), two texts each, not {pair!r}")
        template = self.template or ALPACA
        examples = [
            encode(Record(question, "", answer), self.tokenizer, template)
            for question, answer in pairs
        ]
        longest = max(len(example.ids) for example in examples) - 1
        if longest > self.config.n_positions:
            raise UserError(
                f"a question with its answer has {plural(longest, 'token')}, but the model reads "
                f"at most {self.config.n_positions}"
            )
        batch = batch_of(examples)
        return batch._replace(weights=batch.weights / batch.weights.sum())

    def _check_ids(self, ids: Sequence[int]) -> None:
        """Raise UserError unless the model can read these ids."""
        longest, size = self.config.n_positions, self.config.vocab_size
        is_list = isinstance(ids, Sequence) and not isinstance(ids, str | bytes)
        if not (is_list or (isinstance(ids, np.ndarray) and ids.ndim == 1)):
            raise UserError(f"ids must be a list of whole numbers, not {ids!r}")
        if not 0 < len(ids) <= longest:
            raise UserError(f"a sequence must have 1 to {plural(longest, 'id')}, not {len(ids)}")
        wrong = [i for i in ids if not (isinstance(i, int | np.integer) and 0 <= i < size)]
        if wrong:
            raise UserError(f"ids must be whole numbers from 0 to {size - 1}, not {wrong[0]!r}")


class Tensors(MutableMapping[str, Array]):
    """A model's tensors by name.  To set one writes its numbers; none can be added or removed."""

    def __init__(self, views: Mapping[str, Array]):
        self._views = views

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __setitem__(self, name: str, value: Array) -> None:
        if name not in self._views:
            raise UserError(f"the model has no tensor {name!r}")
        view, shape = self._views[name], np.shape(value)
        if shape != view.shape:
            raise UserError(f"{name} has the shape {view.shape}, not {shape}")
        view[...] = value

    def __delitem__(self, name: str) -> None:
        raise UserError("a model needs all of its tensors")

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)


def is_finite(tensor: Array) -> bool:
    """Return whether all numbers of a tensor are finite."""
    return bool(array_module(tensor).isfinite(tensor).all())


def split_decoding(values: dict[str, Any]) -> tuple[int, Sampling, np.random.Generator]:
    """Return the most new tokens, how each is chosen, and the random numbers."""
    limit, seed = values.pop("max_new_tokens"), values.pop("seed", 0)
    if limit < 1 or seed < 0:
        raise UserError("max_new_tokens must be at least 1, and seed at least 0")
    return limit, Sampling(**values), np.random.default_rng(seed)
