"""Settings of Sphinx for the book."""

from sphinx.application import Sphinx

from book.front import FRONT, mark_plumbing
from book.links import PLAIN, document_of, is_page
from book.nodes import add_nodes
from book.pages import KernelParser, ModuleParser
from book.parse import read_sources

project = "minigpt2"
extensions = ["myst_parser"]  # kernels/README.md is in Markdown
source_suffix = {".py": "module", ".cu": "kernel", ".cuh": "kernel", ".md": "markdown"}
# Few patterns: Sphinx translates each of them anew for every page.
include_patterns = ["minigpt2/**.py", "kernels/*.cu*", "kernels/**README.md", f"{PLAIN}.py"]
exclude_patterns = [f"{name}.py" for name in map(document_of, read_sources()) if not is_page(name)]
root_doc = FRONT
templates_path = ["templates"]
html_additional_pages = {"index": "to_the_front.html"}
smartquotes = False  # options begin with two dashes
html_theme = "furo"
html_title = "minigpt2"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"


def setup(app: Sphinx) -> dict[str, bool]:
    """Let Sphinx read modules and kernels."""
    app.add_source_parser(ModuleParser)
    app.add_source_parser(KernelParser)
    add_nodes(app)
    app.connect("html-page-context", mark_plumbing, priority=900)  # behind the theme
    return {"parallel_read_safe": True, "parallel_write_safe": True}
