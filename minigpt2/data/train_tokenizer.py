"""Training a tokenizer: learning a vocabulary from your own text.

Digits are never merged, neither with each other nor with the space before them.  So every number
is spelled digit by digit, and a digit is the same token everywhere: a model can then add numbers
that it has never seen.  The library `tokenizers` learns the merges.  The result is written in the
form of GPT-2's files (data/tokenizer), with ids in GPT-2's order: bytes, merges, end-of-text.
"""

import json
from collections.abc import Iterable

from minigpt2.data.tokenizer import Tokenizer, tokenizer_of
from minigpt2.data.vocabulary import END_OF_TEXT, byte_of_character
from minigpt2.errors import UserError


def train_tokenizer(texts: Iterable[str], n_vocab: int) -> Tokenizer:
    """Learn n_vocab − 257 merges from texts, or fewer if the texts have no more pairs.

    Raises UserError if the library is not installed.
    """
    try:
        import tokenizers
    except ModuleNotFoundError:
        raise UserError(
            "training a tokenizer needs the package `tokenizers`: pip install 'minigpt2[pretrain]'"
        ) from None
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    characters = list(byte_of_character())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=n_vocab - 1, initial_alphabet=characters, show_progress=False
    )
    trained.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    tokens = [*characters, *(left + right for left, right in merges), END_OF_TEXT]
    vocab_json = json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False)
    merges_txt = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""])
    return tokenizer_of(vocab_json.encode(), merges_txt.encode(), name="trained")
