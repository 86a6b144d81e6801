"""The pages of the book, as `make book` writes them: every link leads somewhere, nothing is lost.

They need Sphinx: `make check-book` installs it and runs these tests.
"""

import ast
import html
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

pytest.importorskip("sphinx", reason="`make check-book` installs Sphinx")

from book.blocks import Display, Example, Figure, Row, blocks_of, title_of
from book.elements import Context, equations, parts_of, prose
from book.links import GUIDES, is_page, line_anchor, read_book, used_in

ROOT = Path(__file__).parent.parent.parent
BOOK = read_book()
NAMES = [*BOOK.paths, *GUIDES]
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The HTML of every page by its document, as a user's command writes them."""
    folder = tmp_path_factory.mktemp("book")
    command = [sys.executable, "-m", "book", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith(f"open {folder}/index.html in a browser\n")
    written = {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.html")
    }
    return {name: path.read_text(encoding="utf-8") for name, path in written.items()}


def anchors_in(page):
    return set(re.findall(r'\bid="([^"]*)"', page))


def test_every_module_and_kernel_has_a_page(pages):
    assert set(NAMES) <= set(pages)
    listed = {f"minigpt2/{module}" for module in ("backend", "ops/gelu", "cli")}
    assert listed <= set(BOOK.entries) and all(map(is_page, BOOK.entries))


def test_every_link_leads_to_a_page_and_an_anchor(pages):
    anchors = {name: anchors_in(page) for name, page in pages.items()}
    checked = 0
    for name, page in pages.items():
        here = Path(name).parent
        for address in re.findall(r'<a [^>]*\bhref="([^"]*)"', page):
            if address.startswith(("http:", "https:", "mailto:")):
                continue
            path, _, anchor = unquote(html.unescape(address)).partition("#")
            target = name
            if path:
                parts = (here / path).as_posix().split("/")
                while ".." in parts:
                    at = parts.index("..")
                    del parts[at - 1 : at + 1]
                target = "/".join(parts).removesuffix(".html")
            assert target in pages, f"{name}: {address}"
            assert not anchor or anchor in anchors[target], f"{name}: {address}"
            checked += 1
    assert checked > 50_000


def test_no_page_needs_the_network(pages):
    for name, page in pages.items():
        loaded = re.findall(
            r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(https?:[^"]*)"', page
        )
        assert not loaded, name


@pytest.mark.parametrize("name", [n for n, entry in BOOK.entries.items() if entry.number])
def test_a_chapter_has_its_equations_figures_examples_and_code(pages, name):
    page, text = pages[name], BOOK.sources[name]
    blocks = blocks_of(ast.get_docstring(ast.parse(text)))
    rows = [row for block in blocks if isinstance(block, Display) for row in block.rows]
    for number in (number for row in rows for number in row.numbers):
        anchor = BOOK.equations[number].anchor
        assert page.count(f'id="{anchor}"') == 1
        assert (f'id="used-{anchor}"' in page) == bool(used_in(number, BOOK))
    shown = html.unescape(re.sub(r"<[^>]*>", "", page))
    for block in blocks:
        if isinstance(block, Figure | Example):
            assert block.text.replace("<BLANKLINE>", "") in shown
    assert f"{BOOK.entries[name].number}. {BOOK.entries[name].title}" in shown
    last = len(text.splitlines())
    assert f'id="{line_anchor(last)}"' in page


@pytest.mark.parametrize(
    ("texts", "columns"),
    [
        (["y = x", "dz → 2"], [2, 2]),
        (["y = x", "more", "dz = 2"], [2, 1, 2]),
        (["y = x", "dz += Σ_{n = 1} 2"], [2, 2]),
        (["y = x", "  = z"], [2, 2]),
        (["y   = x"], [1]),
        (["y = x", "i sees j  ⟺  j ≤ i"], [1, 1]),
    ],
)
def test_equations_are_aligned_at_their_signs(texts, columns):
    display = Display(tuple(Row(text, ("4.20",)) for text in texts))
    group = equations(display, Context(BOOK))
    assert [len(row.children) for row in group.children] == columns
    assert ("aligned" in group["classes"]) == (2 in columns)
    for row, text in zip(group.children, texts, strict=True):
        assert " ".join(row.astext().split()) == " ".join(text.split())


@pytest.mark.parametrize(
    "parts",
    [
        ["a = b"],
        ["Σᵢ (π − ρ) ∇ln π", "= −Σᵢ ρ ∇ln π", "= 0"],
        ["m = (0.9 · 2 − 1) / 1.9 + 0.003", "= 0.424"],
        ["max(x where x = y, z where z = y, w where w = y)"],
    ],
)
def test_a_long_formula_is_cut_at_its_signs(parts):
    assert parts_of(" ".join(parts)) == parts


def test_a_formula_keeps_what_it_touches():
    formulas = [
        (node["before"], node.astext(), node["behind"])
        for node in prose("of (γ's, not β) or x: n-th", Context(BOOK, has_symbols=True))
        if not isinstance(node, str)
    ]
    assert formulas == [
        ("(", "γ", "'s,"),
        ("", "β", ")"),
        ("", "x", ":"),
    ]


def test_a_formula_and_what_it_touches_are_on_one_line(pages):
    assert re.search(r'<span class="together">\(?<math>', pages["minigpt2/ops/linear"])


def test_a_page_without_a_number_shows_formulas_where_it_has_some(pages):
    for name, has_some in {
        "model/heads": True,
        "device/cublaslt": True,
        "direct_file": False,
    }.items():
        assert ("<math>" in pages[f"minigpt2/{name}"]) == has_some, name


def test_a_chapter_and_its_kernels_lead_to_each_other(pages):
    assert 'href="../../kernels/grad_norm.html"' in pages["minigpt2/ops/adamw"]
    assert 'href="../minigpt2/ops/adamw.html"' in pages["kernels/grad_norm"]


def test_the_uses_of_an_equation_are_lists(pages):
    line = re.findall(r'<p class="uses" id="used-eq-5-3">(.*)</p>', pages["minigpt2/ops/gelu"])[0]
    shown = html.unescape(re.sub(r"<[^>]*>", "", line))
    lines = r"\S+\.\w+ \d+(, \d+)*"
    assert re.match(rf"\(5\.3\) computed in {lines}(, {lines})*; mentioned in 15\. Block, ", shown)


def test_a_page_without_code_has_no_section_for_it(pages):
    assert 'id="code"' not in pages["minigpt2/ops/__init__"]
    assert 'id="code"' in pages["minigpt2/ops/gelu"]


def test_the_side_bar_has_the_names_of_the_first_page(pages):
    page = pages["minigpt2/ops/gelu"]
    for name in GUIDES.values():
        assert re.search(rf"toctree-l1[^>]*><a [^>]*>{name}</a>", page)
    assert re.search(r'<li class="toctree-l1 plumbing"><a [^>]*>Parallel work</a>', page)
    assert re.search(r'<li class="toctree-l1"><a [^>]*>2\. Linear map</a>', page)


def test_the_first_page_lists_all(pages):
    page = pages["minigpt2/__init__"]
    shown = html.unescape(re.sub(r"<[^>]*>", "", page))
    for name, entry in BOOK.entries.items():
        title = f"{entry.number}. {entry.title}" if entry.number else entry.title
        summary = title_of(ast.get_docstring(ast.parse(BOOK.sources[name]))).summary
        line = f"{title}: {summary}".replace("`", "")  # which is set as code
        assert line in re.sub(r"\s+", " ", shown), name
    assert "minigpt2/__init__.html" in pages["index"]


def test_functions_are_in_the_index(pages):
    lines = BOOK.sources["minigpt2/ops/gelu"].splitlines()
    line = lines.index("def gelu_backward(")  # the decorator is the line above
    assert f'href="minigpt2/ops/gelu.html#{line_anchor(line)}"' in pages["genindex"]
