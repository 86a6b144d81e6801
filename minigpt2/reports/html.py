"""HTML pages: each is one file that needs no other file and no network.

The pages are in minigpt2/pages.  Jinja2 fills them in, and escapes every value.  What a browser
hides or reorders by is spelled, as in a terminal.
"""

from functools import cache
from typing import Any

from minigpt2.terminal import visible


@cache
def pages() -> Any:
    """Return the Jinja2 environment of the pages."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # loading takes time

    loader = PackageLoader("minigpt2", "pages")
    return Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: value if hasattr(value, "__html__") else visible(str(value)),
    )


def render(name: str, **values: Any) -> str:
    """Return a page as HTML, with its values filled in."""
    return pages().get_template(f"{name}.html").render(values)
