"""Template files: your own template, and the one that a model was tuned with.

A file has the fields of `Template`, and each is text as it is in the file.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from minigpt2.data.conversations import check_text
from minigpt2.data.template import TEMPLATE_FILE, TEMPLATES, Template
from minigpt2.errors import UserError
from minigpt2.reading import json_kind, parse_json, quoted, read_text
from minigpt2.yaml_files import is_null, node_kind, read_items, text_of

NAMES = [field.name for field in fields(Template)]
PLACES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # required and optional, by text
    "question": (("instruction",), ("input",)),
    "question_with_input": (("instruction", "input"), ()),
    "system": (("system",), ()),
}


def open_template(name: str) -> Template:
    """Return a template by its name, or from a file.

    Raises UserError if there is none of that name, or the file is not a template.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        known = ", ".join(TEMPLATES)
        raise UserError(f"template {name!r} is none of {known}, nor a .yaml or .json file")
    content = {}
    for field, node, where in read_items(path, f"the texts of a template: {', '.join(NAMES)}"):
        try:
            content[field] = "" if is_null(node) else text_of(node)
        except ValueError:
            raise UserError(
                f"{where}: {quoted(field)} is not text, but {node_kind(node)}"
            ) from None
    return template_from(content, str(path))


def stored_template(folder: Path) -> Template | None:
    """Return the template that a model was tuned with, or None if its folder has none.

    Raises UserError if the file is not a template.
    """
    path = folder / TEMPLATE_FILE
    if not path.is_file():
        return None
    content = parse_json(read_text(path), path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {json_kind(content)}, not the texts of a template")
    return template_from(content, str(path))


def template_from(content: Mapping[str, Any], where: str) -> Template:
    """Return the template that these fields describe; raises UserError if they do not."""
    known = ", ".join(NAMES)
    if not isinstance(content.get("question"), str):
        raise UserError(f"{where} has no text 'question'; a template has {known}")
    for name, text in content.items():
        if name not in NAMES:
            raise UserError(f"{where}: {quoted(name)} is none of a template's {known}")
        check_text(text, f"{where}: {name!r}", may_be_empty=True)
        check_places(name, text, where)
    return Template(**content)


def check_places(name: str, text: str, where: str) -> None:
    """Raise UserError unless a template's text has the places that belong in it, and no others."""
    required, optional = PLACES.get(name, ((), ()))
    for field in ("instruction", "input", "system"):
        place = "{" + field + "}"
        if field in required and place not in text and (text or name != "question_with_input"):
            raise UserError(f"{where}: {name!r} has no place for {place}")
        if place in text and field not in required + optional:
            raise UserError(f"{where}: {name!r} has {place}, which is not filled in there")
