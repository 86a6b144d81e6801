"""A tokenizer and questions that are small enough to be seen through."""

import json

from minigpt2.data.examples import Example, encode
from minigpt2.data.records import Record
from minigpt2.data.template import ALPACA
from minigpt2.data.tokenizer import tokenizer_of
from minigpt2.data.vocabulary import END_OF_TEXT, byte_of_character

MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("Ġ", "w")]


def files_of(merges):
    """The contents of vocab.json and merges.txt for a list of merges."""
    tokens = [*byte_of_character(), *(left + right for left, right in merges), END_OF_TEXT]
    vocab = json.dumps({token: i for i, token in enumerate(tokens)}).encode()
    return vocab, "\n".join(["#version: 0.2", *map(" ".join, merges), ""]).encode()


def small_tokenizer(merges=()):
    """A tokenizer with these merges: without any, an id a byte, in GPT-2's order of bytes."""
    return tokenizer_of(*files_of(merges), "small")


def example_of(prompt, answer):
    """An example of the ids of a prompt and of its answer."""
    ids = [*map(int, prompt), *map(int, answer)]
    return Example(ids, [False] * len(prompt) + [True] * len(answer))


def encode_prompt(record, tokenizer, template=ALPACA):
    """The ids of everything before a record's last answer."""
    example = encode(record, tokenizer, template)
    return example.ids[: example.last_answer]


RECORDS = [
    Record("Add.", "1 + 2", "3"),
    Record("Name a cat.", "", "Tom, or Kitty."),
    Record("Say {nothing}.", "", "{}"),
    Record("Add.", "2 + 2", "4"),
    Record("Count to five.", "by ones", "1 2 3 4 5"),
    Record("Name a dog.", "", "Rex"),
]
