"""Template: how a question becomes a prompt, in training and in use alike.

    alpaca  Alpaca's texts (Taori et al. 2023), with an input and without
    qa      "Question:" and "Answer:"
    chat    "User:" and "Assistant:", and "System:" before them
    raw     the texts as they are

Your own template is a YAML or JSON file with the fields of `Template` (data/template_files).  An
input of spaces alone counts as empty.

A prompt of alpaca, qa or chat ends with a line break.  So the answer starts on a new line, and its
first token does not depend on how the prompt's last word was split into tokens.

In a conversation the first question has the same prompt as a single question, except that the
system's message, if there is one, replaces the opening.  Later questions have no opening.
End-of-text closes each answer.

    >>> print(TEMPLATES["qa"].first_prompt("How many?", system="Count."))
    Count.
    <BLANKLINE>
    Question:
    How many?
    <BLANKLINE>
    Answer:
    <BLANKLINE>
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from minigpt2.data.records import Record

TEMPLATE_FILE = "template.json"  # in a model's folder


@dataclass(frozen=True)
class Template:
    """The texts around a question.

    {instruction}, {input} and {system} are replaced; all other braces stay as they are.
    """

    question: str
    question_with_input: str = ""  # default: question, with input below the instruction
    opening: str = ""
    opening_with_input: str = ""  # default: opening
    system: str = "{system}\n\n"

    def first_pieces(
        self, instruction: str, input_text: str = "", system: str = ""
    ) -> list["Piece"]:
        """Return the prompt of a conversation's first question."""
        if system.strip():
            before = text_of(fill(self.system, system=system))
        else:
            before = (input_text.strip() and self.opening_with_input) or self.opening
        return [Piece(before, "opening"), *self.later_pieces(instruction, input_text)]

    def later_pieces(self, instruction: str, input_text: str = "") -> list["Piece"]:
        """Return the prompt of a later question: without the opening."""
        if not input_text.strip():
            return fill(self.question, instruction=instruction, input="")
        if self.question_with_input or "{input}" in self.question:
            text = self.question_with_input or self.question
            return fill(text, instruction=instruction, input=input_text)
        below = [Piece(instruction, "instruction"), Piece("\n"), Piece(input_text, "input")]
        return [
            part
            for piece in fill(self.question, instruction=instruction)
            for part in (below if piece.field else [piece])
        ]

    def first_prompt(self, instruction: str, input_text: str = "", system: str = "") -> str:
        """Return the text of `first_pieces`."""
        return text_of(self.first_pieces(instruction, input_text, system))

    def later_prompt(self, instruction: str, input_text: str = "") -> str:
        """Return the text of `later_pieces`."""
        return text_of(self.later_pieces(instruction, input_text))

    def save(self, folder: Path) -> None:
        """Write the template into the folder of a model."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (folder / TEMPLATE_FILE).write_text(text + "\n", encoding="utf-8")


class Piece(NamedTuple):
    """A run of a prompt, and what it is: opening (or a system message), instruction or input.

    The template's other texts have no name.
    """

    text: str
    field: str = ""


def text_of(pieces: Sequence[Piece]) -> str:
    """Return the text of pieces."""
    return "".join(piece.text for piece in pieces)


def fill(text: str, **values: str) -> list[Piece]:
    """Replace each {name} by its value, in one pass: braces inside a value stay as they are."""
    places = "|".join(re.escape("{" + name + "}") for name in values)
    parts = re.split(f"({places})", text)
    return [
        Piece(values[part[1:-1]], part[1:-1]) if number % 2 else Piece(part)
        for number, part in enumerate(parts)
        if part
    ]


ALPACA = Template(
    opening="""\
Below is an instruction that describes a task. Write a response that appropriately completes \
the request.

""",
    opening_with_input="""\
Below is an instruction that describes a task, paired with an input that provides further \
context. Write a response that appropriately completes the request.

""",
    question="""\
### Instruction:
{instruction}

### Response:
""",
    question_with_input="""\
### Instruction:
{instruction}

### Input:
{input}

### Response:
""",
)
TEMPLATES = {
    "alpaca": ALPACA,
    "qa": Template(question="Question:\n{instruction}\n\nAnswer:\n"),
    "chat": Template(
        question="User:\n{instruction}\n\nAssistant:\n", system="System:\n{system}\n\n"
    ),
    "raw": Template(question="{instruction}"),
}


class Part(NamedTuple):
    """A prompt in pieces, or an answer, in one, that end-of-text closes."""

    pieces: list[Piece]
    is_answer: bool
    is_learned: bool = True  # where it is an answer

    @property
    def text(self) -> str:
        """The text of its pieces."""
        return text_of(self.pieces)


def parts_of(record: Record, template: Template = ALPACA) -> list[Part]:
    """Return the prompts and answers of a record in turn; a plain text has no prompt."""
    if record.is_text:
        return [Part([Piece(record.output)], is_answer=True)]
    parts: list[Part] = []
    for question, answer, is_learned in record.earlier:
        if parts:
            prompt = template.later_pieces(question)
        else:
            prompt = template.first_pieces(question, system=record.system)
        parts += [Part(prompt, is_answer=False), Part([Piece(answer)], True, is_learned)]
    if parts:
        prompt = template.later_pieces(record.instruction, record.input)
    else:
        prompt = template.first_pieces(record.instruction, record.input, record.system)
    return [*parts, Part(prompt, is_answer=False), Part([Piece(record.output)], is_answer=True)]


def prompt_of(record: Record, template: Template = ALPACA) -> str:
    """Return the prompt of a record that has no earlier exchanges."""
    return template.first_prompt(record.instruction, record.input, record.system)
