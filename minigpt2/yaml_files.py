"""YAML files: mappings from names to values, each with its line, for settings and templates.

Only the nodes of YAML are read here: no alias is expanded, no date or number is made of a text.
What a value means is decided by what it is for.  The values of a JSON file become the same nodes.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from minigpt2.errors import UserError
from minigpt2.reading import json_kind, parse_json, quoted, read_text
from minigpt2.wording import plural, shorten

NULL, TEXT, LIST, MAPPING = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "str", "seq", "map"))

DEEPEST = 20  # levels of lists and mappings
MOST_NODES = 10_000  # names and values


class Item(NamedTuple):
    """A name with its value, and the place for errors: the file and the line."""

    name: str
    value: yaml.Node
    where: str


def read_items(path: Path, content: str) -> list[Item]:
    """Read a file that maps names to values; `content` says what it should hold, for errors.

    Raises UserError, with the line, if it is another kind of file, or if a name is there twice.
    """
    text = read_text(path)
    read = json_values if path.suffix.lower() == ".json" else yaml_values
    items: dict[str, Item] = {}
    lines: dict[str, int] = {}
    for name, value, line in read(text, path, content):
        where = f"{path}, line {line}"
        if name in items:
            raise UserError(f"{where}: {quoted(name)} is in line {lines[name]}, too")
        items[name], lines[name] = Item(name, value, where), line
    return list(items.values())


def yaml_values(text: str, path: Path, content: str) -> Iterator[tuple[str, yaml.Node, int]]:
    """Yield the names of a YAML file with their values and lines; raises UserError."""
    node = compose(text, str(path))
    if node is None:
        raise UserError(f"{path} is empty: it must hold {content}")
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{path} is {node_kind(node)}: it must hold {content}")
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"{path}, line {line}: a name must be a text, not {node_kind(key)}")
        yield key.value, value, line


def json_values(text: str, path: Path, content: str) -> Iterator[tuple[str, yaml.Node, int]]:
    """Yield the names of a JSON file with their values and lines; raises UserError."""
    if not text.strip():
        raise UserError(f"{path} is empty: it must hold {content}")
    whole = parse_json(text, path)
    if not isinstance(whole, dict):
        raise UserError(f"{path} is {json_kind(whole)}: it must hold {content}")
    decoder = json.JSONDecoder()
    line, place = 1, 0
    for name in whole:  # it is JSON, so the next sign of each kind is where it must be
        start = text.index('"', place)
        line += text.count("\n", place, start)
        _, place = decoder.raw_decode(text, start)
        place = text.index(":", place) + 1
        while text[place].isspace():
            place += 1
        value, end = decoder.raw_decode(text, place)
        try:
            node = json_node(value, text[place:end])
        except RecursionError:
            raise UserError(f"{path}, line {line}, is nested too deeply") from None
        yield name, node, line
        line += text.count("\n", start, end)
        place = end


def json_node(value: Any, text: str = "") -> yaml.Node:
    """Return the node of a JSON value; `text` is what the file has for it, such as 1e5."""
    if isinstance(value, dict):
        return yaml.MappingNode(MAPPING, [(json_node(k), json_node(v)) for k, v in value.items()])
    if isinstance(value, list):
        return yaml.SequenceNode(LIST, [json_node(item) for item in value])
    if not isinstance(value, str):
        return yaml.ScalarNode(NULL if value is None else TEXT, text or json.dumps(value))
    return yaml.ScalarNode(TEXT, value)


class Bounded(yaml.SafeLoader):
    """A reader of YAML that ends early where a text has more than any settings file or template.

    PyYAML takes a tenth of a millisecond a node, and longer the deeper they are nested.
    """

    nodes = depth = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        """Read the next node, with all that is inside; raises RecursionError or YAMLError."""
        self.nodes, self.depth = self.nodes + 1, self.depth + 1
        if self.depth > DEEPEST:
            raise RecursionError
        if self.nodes > MOST_NODES:
            raise yaml.YAMLError(f"it has more than {plural(MOST_NODES, 'value')}")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def compose(text: str, where: str) -> yaml.Node | None:
    """Return the node of a YAML text, None if it is empty; raises UserError."""
    try:
        return yaml.compose(text, Loader=Bounded)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}," if mark else ""
        raise UserError(f"{where}{line} is not YAML: {shorten(str(error.problem))}") from None
    except RecursionError:
        raise UserError(f"{where} is not YAML that can be read: it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{where} is not YAML: {shorten(str(error))}") from None


def is_null(node: yaml.Node) -> bool:
    """Whether a node is YAML's null: nothing at all, `~` or `null`, not in quotes."""
    return node.tag == NULL


def text_of(node: yaml.Node) -> str:
    """Return the text of a node as it is in the file.

    Raises ValueError if it is a list, a mapping or null, or has half of a surrogate pair that does
    not stand for a byte of a file's name.
    """
    if not isinstance(node, yaml.ScalarNode) or is_null(node):
        raise ValueError
    # Escapes may write a character beyond U+FFFF as two halves.
    text = node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    text.encode("utf-8", "surrogateescape")
    return text


def node_kind(node: yaml.Node) -> str:
    """Return what a node is, in words."""
    if isinstance(node, yaml.ScalarNode):
        return "null" if is_null(node) else f"the text {quoted(node.value)}"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
