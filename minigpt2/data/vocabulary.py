"""Vocabulary: the tokens of a model and their ids, read from the files of its folder.

Two files, as in the official checkpoints
    `merges.txt` has one merge on each line; `vocab.json` maps each token to its id.
    Both write bytes as printable characters: the 188 printable bytes represent
    themselves, and the other bytes, in order, are the characters from 256 on.
    Ids are in the order of the bytes, then of the merges; end-of-text is last.

One file, as newer programs write it
    `tokenizer.json` describes a tokenizer of any kind.  It is read if it describes one
    that works as GPT-2's does: byte-level BPE, without a normaliser, over GPT-2's pieces
    of text.  Its ids may be in any order, it may have tokens that no merge makes, and
    special tokens besides end-of-text.  Text never becomes any of these.

    BPE joins two tokens if they are one of the merges; tiktoken, if what results is a token.
    Both do the same if two tokens that together are a token never meet without being a
    merge.  What happens within a token's bytes, until the token is joined, does not depend
    on the text around them.  So each token is made once from its bytes alone, to see that.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from minigpt2.errors import UserError
from minigpt2.reading import parse_json
from minigpt2.wording import shorten

END_OF_TEXT = "<|endoftext|>"
TWO_FILES = ("vocab.json", "merges.txt")
ONE_FILE = "tokenizer.json"
Pair = tuple[bytes, bytes]


class Vocabulary(NamedTuple):
    """The tokens of a tokenizer."""

    ranks: dict[bytes, int]  # of bytes, then of merges, in the order in which they are joined
    ids: list[int]  # by rank
    tokens: dict[int, bytes]  # by id, of all ids
    end_of_text: int


@cache
def byte_of_character() -> dict[str, int]:
    """Return the byte that each character of the files represents, in GPT-2's order of ids."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    characters = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
    return dict(zip(characters, printable + others, strict=True))


@cache
def latin_characters() -> dict[int, int]:
    """Return what turns a file's characters into those of Latin-1, which are bytes."""
    others = dict.fromkeys(range(256), 0xFFFF)  # not one of Latin-1
    return others | {ord(c): byte for c, byte in byte_of_character().items()}


def bytes_of(token: str) -> bytes:
    """Return the bytes of a token that is written in the characters of the files.

    Raises ValueError for any other character.
    """
    return token.translate(latin_characters()).encode("latin-1")


def first_ranks() -> dict[bytes, int]:
    """Return the ranks of the 256 bytes."""
    return {bytes([b]): i for i, b in enumerate(byte_of_character().values())}


def from_two_files(vocab_json: bytes, merges_txt: bytes, name: str) -> Vocabulary:
    """Read both files; raises UserError, with `name` for their folder, if they are damaged."""
    vocab, merges = (Path(name) / file for file in TWO_FILES)
    ids = parse_json(utf8_text(vocab_json, vocab), vocab)
    ranks = first_ranks()
    for number, line in enumerate(utf8_text(merges_txt, merges).split("\n")[1:], start=2):
        line = line.removesuffix("\r")  # of Windows
        try:
            if line:
                left, right = line.split(" ")
                ranks[bytes_of(left) + bytes_of(right)] = len(ranks)
        except ValueError:
            raise UserError(
                f"{merges}, line {number}, is not two tokens: {shorten(line, width=60)!r}"
            ) from None
    if not (isinstance(ids, dict) and are_ids(ids.values()) and END_OF_TEXT in ids):
        raise UserError(f"{vocab} does not map tokens to ids, {END_OF_TEXT} among them")
    end_of_text = ids.pop(END_OF_TEXT)
    try:
        agree = {bytes_of(token): i for token, i in ids.items()} == ranks
    except ValueError:  # a character that stands for no byte
        agree = False
    if not agree or end_of_text != len(ranks):
        raise UserError(f"{vocab} does not have the ids that {merges.name} gives")
    tokens = {i: token for token, i in ranks.items()} | {end_of_text: END_OF_TEXT.encode()}
    return Vocabulary(ranks, list(range(len(ranks))), tokens, end_of_text)


def utf8_text(contents: bytes, path: Path) -> str:
    """Return the text of a file; raises UserError if it is not UTF-8."""
    try:
        return contents.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason}, byte {error.start}") from None


def are_ids(values: Iterable[object]) -> bool:
    """Whether all values are whole numbers; JSON's true and 1.0 equal 1, but are none."""
    return all(type(value) is int for value in values)


def from_one_file(contents: bytes, path: Path) -> Vocabulary:
    """Read tokenizer.json; raises UserError unless it describes a tokenizer such as GPT-2's."""
    described = parse_json(utf8_text(contents, path), path)
    try:
        require_like_gpt2(described)
        model = described["model"]
        special = special_tokens(described.get("added_tokens") or [], model["vocab"])
        ids = {**model["vocab"], **special}
        if not are_ids(ids.values()) or sorted(ids.values()) != list(range(len(ids))):
            raise UserError(f"the ids of its tokens are not 0 to {len(ids) - 1:,}, each once")
        if END_OF_TEXT not in ids:
            raise UserError(f"it has no token {END_OF_TEXT}")
        merges = [pair_of(merge) for merge in model["merges"]]
        return joined(merges, {t: i for t, i in ids.items() if t not in special}, special)
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from None
    except (ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise UserError(f"{path} is not a tokenizer.json: {error!r:.200}") from None


def require_like_gpt2(described: Mapping[str, Any]) -> None:
    """Raise UserError unless a tokenizer's parts do what those of GPT-2's tokenizer do."""
    model = described["model"]
    fixed = {
        "model": (model.get("type", "BPE"), ("BPE",)),
        "normalizer": (kind_of(described.get("normalizer")), (None,)),
        "pre_tokenizer": (kind_of(described.get("pre_tokenizer")), ("ByteLevel",)),
        "post_processor": (kind_of(described.get("post_processor")), (None, "ByteLevel")),
        "decoder": (kind_of(described.get("decoder")), (None, "ByteLevel")),
        "dropout": (model.get("dropout") or None, (None,)),
        "continuing_subword_prefix": (model.get("continuing_subword_prefix") or None, (None,)),
        "end_of_word_suffix": (model.get("end_of_word_suffix") or None, (None,)),
        "ignore_merges": (model.get("ignore_merges") or None, (None,)),
    }
    for name, (value, allowed) in fixed.items():
        if value not in allowed:
            expected = allowed[-1] or "none"
            raise UserError(f"its {name} is {value!r:.60}; GPT-2's tokenizer has {expected}")
    (pieces,) = parts_of(described["pre_tokenizer"])
    if pieces.get("add_prefix_space", True) or not pieces.get("use_regex", True):
        text = "add_prefix_space false and use_regex true"
        raise UserError(f"its pre_tokenizer cuts text in another way than GPT-2's, with {text}")


def parts_of(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Return the parts of a tokenizer's part that do something: those of a sequence, or itself."""
    if part is None:
        return []
    if part["type"] == "Sequence":
        lists = (
            part.get(name) for name in ("normalizers", "pretokenizers", "processors", "decoders")
        )
        return [inner for each in lists for item in each or [] for inner in parts_of(item)]
    if part["type"] == "TemplateProcessing" and [*map(list, part["single"])] == [["Sequence"]]:
        return []  # it adds nothing
    return [part]


def kind_of(part: Mapping[str, Any] | None) -> str | None:
    """Return the types of what a part does, None if it does nothing."""
    return " + ".join(each["type"] for each in parts_of(part)) or None


def special_tokens(added: Iterable[Mapping[str, Any]], vocab: Mapping[str, int]) -> dict[str, int]:
    """Return the ids of special tokens.  Raises UserError for added tokens that text becomes."""
    special = {}
    for token in added:
        content, number = token["content"], token["id"]
        if vocab.get(content, number) != number:
            raise UserError(f"its token {content!r:.60} has two ids")
        if not token["special"] and content != END_OF_TEXT:
            text = "is added and not special: text that has it is cut in another way than GPT-2's"
            raise UserError(f"its token {content!r:.60} {text}")
        special[content] = number
    if END_OF_TEXT in vocab:
        special.setdefault(END_OF_TEXT, vocab[END_OF_TEXT])
    return special


def pair_of(merge: Any) -> Pair:
    """Return the two tokens of a merge, which is a list of both or a text with a space between."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return bytes_of(left), bytes_of(right)


def joined(merges: list[Pair], ids: Mapping[str, int], special: Mapping[str, int]) -> Vocabulary:
    """Return the vocabulary of merges; raises UserError if tiktoken would cut text differently."""
    tokens = {i: token.encode() for token, i in special.items()}
    known: dict[bytes, int] = {}
    for token, i in ids.items():
        try:
            tokens[i] = bytes_of(token)
            known[tokens[i]] = i
        except ValueError:  # another character: the token stands for itself
            tokens[i] = token.encode()
    ranks = first_ranks()
    for left, right in merges:
        if left not in ranks or right not in ranks:
            pair = f"{left!r:.60} and {right!r:.60}"
            raise UserError(f"it joins {pair}, but one of them is not a token yet")
        if ranks.setdefault(left + right, len(ranks)) < len(ranks) - 1:
            raise UserError(f"it joins {left + right!r:.60} twice, with other tokens between")
    for needed in ranks:
        if needed not in known:
            raise UserError(f"it has no token {needed!r:.60}, which GPT-2's tokenizer needs")
    require_same_cuts(merges, ranks)
    return Vocabulary(ranks, [known[token] for token in ranks], tokens, special[END_OF_TEXT])


def require_same_cuts(merges: list[Pair], ranks: Mapping[bytes, int]) -> None:
    """Raise UserError if two tokens meet that together are a token, but not one of the merges."""
    joins = {(ranks[a], ranks[b]): ranks[a + b] for a, b in merges}
    halves = {rank: pair for pair, rank in reversed(joins.items())}
    for token in ranks:
        for k in range(1, len(token)):
            left, right = ranks.get(token[:k]), ranks.get(token[k:])
            apart = left is not None and right is not None and (left, right) not in joins
            if apart and can_meet(left, right, joins, halves):
                raise UserError(f"its merges never make its token {token!r:.60}, as GPT-2's do")


def can_meet(left: Any, right: Any, joins: Mapping[Any, int], halves: Mapping[int, Any]) -> bool:
    """Whether BPE leaves two tokens side by side, all by their ranks.

    It does unless, while both were made, the parts that met in the middle were joined before.  So
    the younger of the two is taken apart again and again; `limit` is the rank that it had.
    """
    limit = len(joins) + len(halves) + 256
    while joins.get((left, right), limit) >= limit:
        if max(left, right) not in halves:
            return True
        if left > right:
            limit, left = left, halves[left][1]
        else:
            limit, right = right + 1, halves[right][0]
    return False
