"""Training a tokenizer: a vocabulary of one's own, learnt from text.

Digits are never merged with each other, so every number is spelt digit by digit:
a model can then add numbers that it never saw.  A digit is the same token wherever
it stands: no space is merged with it either.  The learning itself is that of the
`tokenizers` library; the result is written in GPT-2's files (data/tokenizer), with
GPT-2's order of ids: bytes, merges, end-of-text.
"""

import json
from collections.abc import Iterable

from minigpt2.data.tokenizer import END_OF_TEXT, Tokenizer, byte_of_character
from minigpt2.errors import UserError


def learn_tokenizer(texts: Iterable[str], n_vocab: int) -> Tokenizer:
    """Learn n_vocab - 257 merges (fewer if the text has no more pairs) from texts."""
    try:
        from tokenizers import Tokenizer as Learner
        from tokenizers import models, pre_tokenizers, trainers
    except ModuleNotFoundError:
        raise UserError(
            "learning a vocabulary needs the package `tokenizers`: pip install 'minigpt2[pretrain]'"
        ) from None
    learner = Learner(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    characters = list(byte_of_character())
    trainer = trainers.BpeTrainer(
        vocab_size=n_vocab - 1, initial_alphabet=characters, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokens = [*characters, *(left + right for left, right in merges), END_OF_TEXT]
    vocab_json = json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False)
    merges_txt = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""])
    return Tokenizer(vocab_json.encode(), merges_txt.encode(), "almanac")
