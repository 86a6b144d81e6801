"""Added tokens: special tokens that a model got besides those of its vocabulary, such as `[PAD]`.

Older programs write them to `added_tokens.json`, a file of their own: `vocab.json` has none of
them, and `tokenizer.json`, if it is there as well, has all.  Their ids follow the vocabulary's.
Text never becomes one of them.
"""

from pathlib import Path

from minigpt2.data.vocabulary import END_OF_TEXT, Vocabulary, are_ids, utf8_text
from minigpt2.errors import UserError
from minigpt2.reading import parse_json

ADDED = "added_tokens.json"


def with_added_tokens(vocabulary: Vocabulary, contents: bytes, path: Path) -> Vocabulary:
    """Return a vocabulary with the tokens of added_tokens.json.

    Raises UserError unless the file maps them to the ids that follow.
    """
    added = parse_json(utf8_text(contents, path), path)
    if not (isinstance(added, dict) and are_ids(added.values())):
        raise UserError(f"{path} does not map tokens to ids")
    if added.get(END_OF_TEXT) == vocabulary.end_of_text:
        del added[END_OF_TEXT]
    first = len(vocabulary.tokens)
    if sorted(added.values()) != list(range(first, first + len(added))):
        raise UserError(f"{path}: the ids of its tokens are not {first:,} and those that follow")
    new = {i: token.encode("utf-8", "replace") for token, i in added.items()}
    return vocabulary._replace(tokens=vocabulary.tokens | new)


def is_part_of(vocabulary: Vocabulary, other: Vocabulary) -> bool:
    """Return whether another vocabulary is this one, perhaps with tokens added."""
    return (
        vocabulary._replace(tokens=other.tokens) == other
        and vocabulary.tokens.items() <= other.tokens.items()
    )
