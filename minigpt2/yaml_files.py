"""YAML files: mappings from names to values, each with its line, for settings and templates.

Only the nodes of YAML are read here: no alias is expanded, no date or number is made of a text.
What a value means is decided by what it is for.  JSON is YAML, too.
"""

from pathlib import Path
from typing import NamedTuple

import yaml

from minigpt2.errors import UserError
from minigpt2.reading import quoted, read_text
from minigpt2.wording import shorten

NULL = "tag:yaml.org,2002:null"


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
    if path.suffix.lower() == ".json":
        text = text.replace("\t", " ")  # YAML takes no tabs between values
    node = compose(text, str(path))
    if node is None:
        raise UserError(f"{path} is empty: it must hold {content}")
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{path} is {node_kind(node)}: it must hold {content}")
    items: dict[str, Item] = {}
    for key, value in node.value:
        where = f"{path}, line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"{where}: a name must be a text, not {node_kind(key)}")
        if key.value in items:
            first = items[key.value].where.rpartition(" ")[2]
            raise UserError(f"{where}: {quoted(key.value)} stands in line {first}, too")
        items[key.value] = Item(key.value, value, where)
    return list(items.values())


def compose(text: str, where: str) -> yaml.Node | None:
    """Return the node of a YAML text, None if it is empty; raises UserError."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
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

    Raises ValueError if it is a list, a mapping or null.
    """
    if not isinstance(node, yaml.ScalarNode) or is_null(node):
        raise ValueError
    # JSON writes a character beyond U+FFFF as two escapes.
    return node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def node_kind(node: yaml.Node) -> str:
    """Return what a node is, in words."""
    if isinstance(node, yaml.ScalarNode):
        return "null" if is_null(node) else f"the text {quoted(node.value)}"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
