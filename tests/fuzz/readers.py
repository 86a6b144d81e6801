"""Readers: what reads files from outside, valid files to begin with, and the use of what is read.

An input is the contents of a few files, and a number.  The number chooses the names of the files
from the layouts of the reader, and what else there is to choose.
"""

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, get_type_hints
from zlib import crc32

import numpy as np

from minigpt2.cli import settings_class, settings_of
from minigpt2.commands.resume import with_notes
from minigpt2.data.batches import batch_of, training_set
from minigpt2.data.examples import encode
from minigpt2.data.loading import load_data
from minigpt2.data.template import TEMPLATES
from minigpt2.data.template_files import open_template, stored_template
from minigpt2.data.tokenizer import open_tokenizer
from minigpt2.errors import UserError
from minigpt2.inference.model import Model
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.outputs import json_text
from minigpt2.settings import Setting, as_file, read_settings
from minigpt2.tensor_writer import checksums_of, write_tensors
from minigpt2.tensors import INDEX, TENSORS
from minigpt2.training.checkpoint import (
    OPTIMIZER,
    STATE,
    checkpoint_name,
    checksum_of,
    snapshot_of,
    write_checkpoint,
)
from minigpt2.training.checkpoint_reader import open_checkpoint, restore
from minigpt2.training.state import Best, new_state
from minigpt2.weights import load_parameters, save_parameters
from tests.data.entries import ENTRIES
from tests.data.small import MERGES, RECORDS, files_of, small_tokenizer
from tests.data.test_vocabulary import described

SEPARATOR = b"\n=-=-=\n"
CONTEXT = 64  # tokens
TOKENIZER = small_tokenizer(MERGES)
TEXTS = ("", "hello world", "It's 12 o'clock,\n\n  naïve café 東京\x00\U0001f600", "\ud800")


class Input(NamedTuple):
    """The contents of files, and a number that chooses their names and what else there is."""

    files: list[bytes]
    choice: int = 0

    def packed(self) -> bytes:
        """The input as bytes, in which a fuzzer can change what it likes."""
        return bytes([self.choice]) + SEPARATOR.join(self.files)


def unpacked(content: bytes) -> Input:
    """The input that bytes stand for; any bytes are one."""
    return Input(content[1:].split(SEPARATOR), content[0] if content else 0)


class Reader(NamedTuple):
    """A reader: the names that its files can have, inputs to begin with, and how it is run.

    `use(folder, choice)` reads the files in a folder, and uses what it gets.  It raises UserError
    where the reader does, AssertionError where what the reader accepted cannot be used.
    """

    layouts: tuple[tuple[str, ...], ...]
    seeds: list[Input]
    use: Callable[[Path, int], None]

    def write(self, given: Input, folder: Path) -> int:
        """Write the files of an input into a folder; return what is left of its number."""
        rest, layout = divmod(given.choice, len(self.layouts))
        for name, content in zip(self.layouts[layout], given.files, strict=False):
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        return rest


# Data sets


def use_data(folder, choice):
    """Read a data set, and make a batch of it."""
    (path,) = folder.iterdir()
    columns = {"instruction": "ask"} if choice % 4 == 3 else None
    data = load_data(path, columns, skip_bad=bool(choice % 2))
    template = TEMPLATES[data.format.template]
    examples = [encode(record, TOKENIZER, template) for record in data.records]
    for record, example in zip(data.records, examples, strict=True):
        last = example.ids[example.last_answer :]
        assert TOKENIZER.decode(last[:-1]) == record.output and last[-1] == TOKENIZER.end_of_text
    for policy in ("answer", "prompt", "drop"):
        made = training_set(examples, CONTEXT, policy, validation=0.2, seed=0)
        assert all(len(example.ids) <= CONTEXT + 1 for example in made.training + made.validation)
        made.counts()
        if made.training:
            batch_of(made.training[:4])


def json_bytes(value):
    return json.dumps(value).encode()


DATA = Reader(
    (
        ("data.json",),
        ("data.jsonl",),
        ("data.txt",),
        ("data",),
        ("data.v/a.json", "data.v/b.ndjson", "data.v/c"),
    ),
    [
        *(Input([json_bytes([entry, entry])]) for entry, _ in ENTRIES.values()),
        *(
            Input([json_bytes(entry) + b"\n" + json_bytes(entry)], 1)
            for entry, _ in ENTRIES.values()
        ),
        Input([b"Once upon a time.\n"], 2),
        Input(
            [b'\xff\xfe[\x00{\x00"\x00t\x00e\x00x\x00t\x00"\x00:\x00"\x00a\x00"\x00}\x00]\x00'], 3
        ),
        Input([json_bytes([{"text": "a"}]), b'{"text": "b"}\n', b"?"], 4),
        Input([json_bytes([{"ask": "a", "input": None, "output": "b", "weight": 1}])], 15),
        Input(
            [b'\xef\xbb\xbf[{"instruction":"\\ud83d\\ude00","output":"\\u0000","history":[]}]'], 5
        ),
    ],
    use_data,
)


# Settings files


def use_settings(folder, choice):
    """Read a settings file, and write and read it again."""
    (path,) = folder.iterdir()
    command = ("train", "plan", "evaluate", "chat")[choice % 4]
    kind = settings_class(command)
    hints = get_type_hints(kind)
    first = {"train": "data", "evaluate": "data", "plan": "model", "chat": "model"}[command]
    settings = {first: Setting("x"), **read_settings(str(path), command, hints)}
    again = path.with_name("again.yaml")
    again.write_text(as_file(kind, settings), encoding="utf-8", errors="surrogateescape")
    for name, setting in read_settings(str(again), command, hints).items():
        if name in settings:
            assert setting.value == settings[name].value, name
    settings_of(command, settings)


SETTINGS = Reader(
    (("settings.yaml",), ("settings.json",)),
    [
        Input([b"data: a.json\nbatch-size: 4\nlearning_rate: 1e-4\nrecompute: yes\n"]),
        Input([b'columns: {"instruction": ask}\ntest: [a.json, b.json]\ntruncate: drop\n']),
        Input([b"model: gpt2\nsteps: null\ncontext: ~ # none\nprompt_weight: .5\nout: a\n"]),
        Input([b'data: &a "\\ud83d\\ude00"\nout: *a\nanswers: >-\n  yes\n'], 4),
        Input([b"model: gpt2-large\nmicro_batch: 1\nmemory: 80\ntime: no\n"], 2),
        Input(
            [b'{"data": "a", "batch_size": 4, "columns": {"a": "b"}, "test": ["a"], "clip": 1e0}'],
            1,
        ),
        Input([b"model: m\nsystem: >-\n  Be\n  kind.\ntemperature: 0.7\ntop_k: 5\n"], 6),
    ],
    use_settings,
)


# Templates


def use_template(folder, choice):
    """Read a template, save it and read it again, and make examples with it."""
    (path,) = folder.iterdir()
    template = stored_template(folder) if path.name == "template.json" else open_template(str(path))
    with TemporaryDirectory() as name:
        template.save(Path(name))
        assert stored_template(Path(name)) == template
    for record in RECORDS:
        encode(record, TOKENIZER, template)
    assert "a cat" in template.first_prompt("a cat") or "{instruction}" not in template.question
    template.later_prompt("a", "b")
    template.first_prompt("a", "b", "c")


TEMPLATE = Reader(
    (("own.yaml",), ("own.json",), ("template.json",)),
    [
        Input(
            [b"question: |\n  Q: {instruction}\n  A:\nopening: 'Be kind.'\nsystem: \"{system}\"\n"]
        ),
        Input([b'question: "{instruction} {input}"\nquestion_with_input: ~\nopening: !!str 1\n']),
        Input(
            [b'{"question": "{instruction}\\n", "question_with_input": "{input}{instruction}"}'], 1
        ),
        Input([b'{"question": "Q {instruction}", "system": "{system} \\ud83d\\ude00"}'], 2),
    ],
    use_template,
)


# Tokenizers


def use_tokenizer(folder, choice):
    """Open a tokenizer, encode texts, and save it and open it again."""
    tokenizer = open_tokenizer(folder)
    ids = [tokenizer.encode(text) for text in TEXTS]
    for text, encoded in zip(TEXTS, ids, strict=True):
        assert tokenizer.decode(encoded).replace("\ufffd" * 3, "\ufffd") in (text, "\ufffd")
        assert all(0 <= i < tokenizer.n_vocab and i != tokenizer.end_of_text for i in encoded)
        assert all(type(i) is int for i in [*encoded, tokenizer.end_of_text])
    assert "".join(tokenizer.decode_stream(range(tokenizer.n_vocab)))
    with TemporaryDirectory() as name:
        tokenizer.save(Path(name))
        again = open_tokenizer(Path(name))
    assert [again.encode(text) for text in TEXTS] == ids and again.n_vocab == tokenizer.n_vocab


VOCAB, LINES = files_of(MERGES)
SAME = described()
SAME["model"]["vocab"] = json.loads(VOCAB)
SAME["added_tokens"][0]["id"] = len(SAME["model"]["vocab"]) - 1
ONE_FILE = [
    json_bytes(SAME),
    json_bytes(described(order=-1, as_text=False)),
    json_bytes(described(more=["<unused>", "ĠnoĠmerge"])),
]
TOKENIZER_FILES = Reader(
    (
        ("vocab.json", "merges.txt"),
        ("tokenizer.json",),
        ("tokenizer.json", "vocab.json", "merges.txt"),
    ),
    [
        Input([VOCAB, LINES]),
        *(Input([one], 1) for one in ONE_FILE),
        Input([ONE_FILE[0], VOCAB, LINES], 2),
    ],
    use_tokenizer,
)


# Weights


def use_weights(folder, choice):
    """Load a model, and save it and load it again."""
    single = folder / TENSORS
    path = folder if (folder / "config.json").exists() or not single.exists() else single
    parameters = load_parameters(path)
    assert np.isfinite(parameters.flat).all()
    with TemporaryDirectory() as name:
        save_parameters(parameters, Path(name))
        again = load_parameters(Path(name))
    assert again.config == parameters.config
    assert np.array_equal(again.flat, parameters.flat)


CONFIG = GPT2Config(vocab_size=3, n_positions=2, n_embd=4, n_layer=1, n_head=2)
VIEWS = initialise(CONFIG, np.random.default_rng(0)).views


def file_of(tensors, dtype=np.float32):
    """The contents of a safetensors file."""
    with TemporaryDirectory() as name:
        write_tensors(Path(name) / TENSORS, tensors, dtype)
        return (Path(name) / TENSORS).read_bytes()


def as_bfloat16(file):
    """The contents of a safetensors file of F16, its numbers taken for BF16."""
    (length,) = struct.unpack("<Q", file[:8])
    header = file[8 : 8 + length].replace(b'"F16"', b'"BF16"')
    return struct.pack("<Q", len(header)) + header + file[8 + length :]


def config_file(**changes):
    """The contents of config.json."""
    with TemporaryDirectory() as name:
        CONFIG.save(Path(name) / "config.json")
        values = json.loads((Path(name) / "config.json").read_text())
    return json_bytes({**values, **changes})


def in_two():
    """An index and its two files."""
    names = list(VIEWS)
    parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    places = {name: f"{'ab'[k]}.safetensors" for k, part in enumerate(parts) for name in part}
    index = json_bytes({"metadata": {"total_size": 1}, "weight_map": places})
    return [index, *(file_of({name: VIEWS[name] for name in part}) for part in parts)]


HEADS_OF_64 = initialise(GPT2Config(2, 1, 64, n_layer=1, n_head=1), np.random.default_rng(0)).views
WEIGHTS = Reader(
    (
        ("config.json", TENSORS),
        ("config.json", INDEX, "a.safetensors", "b.safetensors"),
        (TENSORS,),
    ),
    [
        Input([config_file(), file_of(VIEWS)]),
        Input([config_file(scale_attn_by_inverse_layer_idx=True), file_of(VIEWS, np.float16)]),
        Input([config_file(), as_bfloat16(file_of(VIEWS, np.float16))]),
        Input(
            [
                config_file(n_inner=16),
                file_of(
                    {f"transformer.{n}": t for n, t in VIEWS.items()}
                    | {"lm_head.weight": VIEWS["wte.weight"]}
                ),
            ]
        ),
        Input([config_file(), *in_two()], 1),
        Input([file_of({name: 0 * tensor for name, tensor in HEADS_OF_64.items()}, np.float16)], 2),
        Input([config_file(), b"\x80\x02}q\x00."]),
    ],
    use_weights,
)

# Checkpoints


def use_checkpoint(folder, choice):
    """Open a checkpoint, restore a state from it, and write it and open it again.

    Half of them get the checksums of what they hold, as if it had been written so.
    """
    if choice % 2:
        sign(folder)
    checkpoint = with_notes(open_checkpoint(folder))
    numbers = checkpoint.numbers
    state = new_state(STATE_OF_RUN.parameters, numbers.precision, seed=numbers.seed)
    restore(checkpoint, state)
    assert all(np.isfinite(moment).all() for moment in (state.m, state.v))
    with TemporaryDirectory() as name:
        path = Path(name) / checkpoint_name(state.step, len(state.partial))
        write_checkpoint(path, snapshot_of(state, MODEL), checkpoint.notes)
        again = open_checkpoint(path)
    for numbers in (again.numbers, checkpoint.numbers):
        # The loss scale follows the precision; names may be there twice.
        numbers.holding[:] = sorted(set(numbers.holding))
    expected = checkpoint.numbers._replace(loss_scale=0, finite_steps=0)
    assert again.numbers._replace(loss_scale=0, finite_steps=0) == expected


def sign(folder):
    """Give state.json the checksums of the files, and its own."""
    path = folder / STATE
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError, UserError):
        content = json.loads(path.read_bytes())
        for name in content["files"]:
            file = folder / name
            is_tensors = name in (TENSORS, OPTIMIZER)
            content["files"][name] = checksums_of(file) if is_tensors else crc32(file.read_bytes())
        content["checksum"] = checksum_of(content)
        path.write_text(json_text(content, ascii_only=True))


MODEL = Model(initialise(CONFIG, np.random.default_rng(0)), TOKENIZER, None)
STATE_OF_RUN = new_state(MODEL.parameters, "float32", seed=5)
NOTES = {
    "log_bytes": 12,
    "log_checksum": 5,
    "overflows": 0,
    "seconds": 1.5,
    "summary": {"data": {"training": 3}, "printed_steps": [{"step": 1}]},
    "settings": {"data": "a.json", "steps": 3},
    "contents": {"the examples": "0f"},
    "rounding": {"cores": "2"},
    "extra": {},
}


def checkpoint_files(**changes):
    """The contents of a checkpoint's files."""
    state = replace(STATE_OF_RUN, **changes)
    for gradient in [state.gradients] if state.partial else []:
        gradient.hold(["wte.weight"])
    with TemporaryDirectory() as name:
        path = Path(name) / checkpoint_name(state.step, len(state.partial))
        write_checkpoint(path, snapshot_of(state, MODEL), NOTES)
        return [(path / file).read_bytes() for file in CHECKPOINT_FILES]


CHECKPOINT_FILES = (STATE, OPTIMIZER, TENSORS, "config.json", "vocab.json", "merges.txt")
STARTED = {"partial": [np.ones(2, np.float32), None], "best": Best(0.5, 1, 2), "validated": 1}
CHECKPOINT = Reader(
    (CHECKPOINT_FILES,),
    [
        Input(checkpoint_files(), 1),
        Input(checkpoint_files(step=3, epoch=1, **STARTED), 1),
        Input(checkpoint_files(step=3, precision="float16")),
    ],
    use_checkpoint,
)

READERS = {
    "data": DATA,
    "settings": SETTINGS,
    "template": TEMPLATE,
    "tokenizer": TOKENIZER_FILES,
    "weights": WEIGHTS,
    "checkpoint": CHECKPOINT,
}
