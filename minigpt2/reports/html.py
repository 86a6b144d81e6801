"""HTML pages: each is one file that needs no other file and no network.

The pages are in minigpt2/pages; Jinja2 fills them, and escapes what it fills in.
"""

from functools import cache
from typing import Any


@cache
def pages() -> Any:
    """Return where pages are, and how they are filled: an Environment of Jinja2's."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # they take time to load

    loader = PackageLoader("minigpt2", "pages")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def render(name: str, **values: Any) -> str:
    """Return a page with its values filled in."""
    return pages().get_template(f"{name}.html").render(values)
