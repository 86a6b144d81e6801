"""Template: how a question becomes a prompt, the same way in training and in use.

    alpaca  Alpaca's texts (Taori et al. 2023), with an input and without
    qa      "Question:" and "Answer:"
    chat    "User:" and "Assistant:", and "System:" before them
    raw     the texts as they are

A template of one's own is a YAML or JSON file with the fields of `Template`.

A prompt of alpaca, qa or chat ends with a line break, so that the answer starts a fresh line
and its first token does not depend on how the prompt's last word was cut into tokens.

In a conversation the first question has the prompt of a single one; where there is a system's
message, that stands in place of the opening.  Later questions have no opening.  Each answer is
closed by end-of-text.
"""

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from minigpt2.data.files import text_of
from minigpt2.data.records import Record
from minigpt2.errors import UserError

STORED = "template.json"  # in a checkpoint's folder


@dataclass(frozen=True)
class Template:
    """The texts around a question.

    {instruction}, {input} and {system} are put in their places; all other braces stay.
    """

    question: str
    question_with_input: str = ""  # default: question, with input below the instruction
    opening: str = ""
    opening_with_input: str = ""  # default: opening
    system: str = "{system}\n\n"

    def prompt(self, instruction: str, given: str = "") -> str:
        """Return a question as it is asked later in a conversation, without the opening."""
        if given and not self.question_with_input:
            instruction, given = f"{instruction}\n{given}", ""
        text = self.question_with_input if given else self.question
        return put(text, instruction=instruction, input=given)

    def first(self, instruction: str, given: str = "", system: str = "") -> str:
        """Return the prompt of a conversation's first question."""
        opening = (given and self.opening_with_input) or self.opening
        before = put(self.system, system=system) if system else opening
        return before + self.prompt(instruction, given)

    def save(self, folder: Path) -> None:
        """Write the template beside a model's weights."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (folder / STORED).write_text(text + "\n", encoding="utf-8")


def put(text: str, **fields: str) -> str:
    """Put fields in their places; braces that one of them brings in are left alone."""
    places = "|".join(re.escape("{" + name + "}") for name in fields)
    return re.sub(places, lambda place: fields[place[0][1:-1]], text)


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


def parts_of(record: Record, template: Template = ALPACA) -> list[Part]:
    """Return the prompts and answers of a record in turn; a text has no prompt."""
    if record.is_text:
        return [Part(record.output, True)]
    parts = []
    for i, (question, answer) in enumerate([*record.earlier, (record.instruction, record.output)]):
        given = record.input if i == len(record.earlier) else ""
        later = template.prompt(question, given)
        prompt = later if i else template.first(question, given, record.system)
        parts += [Part(prompt, False), Part(answer, True)]
    return parts


def prompt_of(record: Record, template: Template = ALPACA) -> str:
    """Return the prompt of a record that has nothing before its question."""
    return template.first(record.instruction, record.input, record.system)


def open_template(name: str) -> Template:
    """Return a template by its name, or from a file; raises UserError."""
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if path.suffix not in (".yaml", ".yml", ".json"):
        known = ", ".join(TEMPLATES)
        raise UserError(f"template {name!r} is none of {known}, nor a .yaml or .json file")
    try:
        content = yaml.safe_load(text_of(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return template_from(content, str(path))


def template_from(content: Any, where: str) -> Template:
    """Return the template that a file's content describes."""
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
    """Return the template that a model was tuned with, if it is beside the weights."""
    path = folder / STORED
    return template_from(json.loads(text_of(path)), str(path)) if path.is_file() else None
