"""Template: how a question becomes a prompt, in training and in use alike.

    alpaca  Alpaca's texts (Taori et al. 2023), with an input and without
    qa      "Question:" and "Answer:"
    chat    "User:" and "Assistant:", and "System:" before them
    raw     the texts as they are

Your own template is a YAML or JSON file with the fields of `Template`.

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
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from minigpt2.data.records import Record
from minigpt2.errors import UserError
from minigpt2.reading import parse_json, read_text

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

    def first_prompt(self, instruction: str, input_text: str = "", system: str = "") -> str:
        """Return the prompt of a conversation's first question."""
        if system:
            before = fill(self.system, system=system)
        else:
            before = (input_text and self.opening_with_input) or self.opening
        return before + self.later_prompt(instruction, input_text)

    def later_prompt(self, instruction: str, input_text: str = "") -> str:
        """Return the prompt of a later question: without the opening."""
        if input_text and not self.question_with_input:
            instruction, input_text = f"{instruction}\n{input_text}", ""
        text = self.question_with_input if input_text else self.question
        return fill(text, instruction=instruction, input=input_text)

    def save(self, folder: Path) -> None:
        """Write the template into the folder of a model."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (folder / TEMPLATE_FILE).write_text(text + "\n", encoding="utf-8")


def fill(text: str, **values: str) -> str:
    """Replace each {name} by its value, in one pass: braces inside a value stay as they are."""
    places = "|".join(re.escape("{" + name + "}") for name in values)
    return re.sub(places, lambda place: values[place[0][1:-1]], text)


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
    """A prompt, or an answer that end-of-text closes."""

    text: str
    is_answer: bool
    is_learned: bool = True  # where it is an answer


def parts_of(record: Record, template: Template = ALPACA) -> list[Part]:
    """Return the prompts and answers of a record in turn; a plain text has no prompt."""
    if record.is_text:
        return [Part(record.output, is_answer=True)]
    parts: list[Part] = []
    for question, answer, is_learned in record.earlier:
        if parts:
            prompt = template.later_prompt(question)
        else:
            prompt = template.first_prompt(question, system=record.system)
        parts += [Part(prompt, is_answer=False), Part(answer, True, is_learned)]
    if parts:
        prompt = template.later_prompt(record.instruction, record.input)
    else:
        prompt = prompt_of(record, template)
    return [*parts, Part(prompt, is_answer=False), Part(record.output, is_answer=True)]


def prompt_of(record: Record, template: Template = ALPACA) -> str:
    """Return the prompt of a record that has no earlier exchanges."""
    return template.first_prompt(record.instruction, record.input, record.system)


def open_template(name: str) -> Template:
    """Return a template by its name, or from a file.

    Raises UserError if there is none of that name, or the file is not a template.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if path.suffix not in (".yaml", ".yml", ".json"):
        known = ", ".join(TEMPLATES)
        raise UserError(f"template {name!r} is none of {known}, nor a .yaml or .json file")
    try:
        content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return template_from(content, str(path))


def template_from(content: Any, where: str) -> Template:
    """Return the template that a file's content describes; raises UserError if it is not one."""
    names = [field.name for field in fields(Template)]
    if not isinstance(content, dict) or not isinstance(content.get("question"), str):
        raise UserError(f"{where} has no text 'question'; a template has {', '.join(names)}")
    for name, text in content.items():
        if name not in names:
            raise UserError(f"{where}: {name!r} is none of a template's {', '.join(names)}")
        if not isinstance(text, str):
            raise UserError(f"{where}: {name!r} is not text")
    for name in ("question", "question_with_input"):
        text = content.get(name, "")
        if "{instruction}" not in text and (text or name == "question"):
            raise UserError(f"{where}: {name!r} has no place for {{instruction}}")
    return Template(**content)


def stored_template(folder: Path) -> Template | None:
    """Return the template that a model was tuned with, or None if its folder has none."""
    path = folder / TEMPLATE_FILE
    return template_from(parse_json(read_text(path), path), str(path)) if path.is_file() else None
