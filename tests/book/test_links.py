"""Links of the book: where equations, chapters, modules and kernels are, and who uses them."""

import html
import re

import pytest

from book.links import MENTION, Target, header_of, read_book, target_of
from book.listing import listing

BOOK = read_book()


def targets_in(text):
    found = [target_of(mention, BOOK) for mention in MENTION.finditer(text)]
    return [(target.document, target.anchor) for target in found if target]


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("by (4.20) and (4.21)", [("minigpt2/ops/layer_norm", f"eq-4-{n}") for n in (20, 21)]),
        ("(0.5) is a number", []),
        ("see chapter 4", [("minigpt2/ops/layer_norm", "")]),
        ("see chapter 999", []),
        ("(data/forest) and ops/gelu.", [("minigpt2/data/forest", ""), ("minigpt2/ops/gelu", "")]),
        ("`minigpt2/ops/gelu.py`, `gelu`", [("minigpt2/ops/gelu", "")]),
        ("kernels/gelu.cu, tests/plain.py", [("kernels/gelu", ""), ("tests/plain", "")]),
        ("x/y, 1/C and n/a", []),
        ("see rows.cuh, attention.cu does", [("kernels/rows", ""), ("kernels/attention", "")]),
        ("none.cuh, cuda.h", []),
    ],
)
def test_what_a_text_points_at(text, targets):
    assert targets_in(text) == targets


def test_every_equation_has_a_place_and_says_what_it_is():
    assert len(BOOK.equations) > 250
    for number, target in BOOK.equations.items():
        assert BOOK.entries[target.document].number == int(number.split(".")[0])
        assert target.says and "  " not in target.says


@pytest.mark.parametrize("kind", ["computed", "mentioned"])
def test_uses_are_lines_that_name_the_equation(kind):
    texts = {name: text.splitlines() for name, text in BOOK.sources.items()}
    uses = [(number, use) for number, them in getattr(BOOK, kind).items() for use in them]
    assert len(uses) > 300
    for number, use in uses:
        assert f"({number})" in texts[use.document][use.line - 1]


def test_code_in_cuda_is_a_use_and_its_header_is_not():
    text = BOOK.sources["kernels/layer_norm"]
    header = header_of(text).count("\n") + 1
    lines = [use.line for use in BOOK.computed["4.20"] if use.document == "kernels/layer_norm"]
    assert lines and min(lines) > header
    assert "(4.20)" in header_of(text)


def test_every_kernel_belongs_to_a_chapter():
    assert {*BOOK.kernels} == {name for name, path in BOOK.paths.items() if path.endswith(".cu")}
    assert BOOK.kernels["kernels/grad_norm"] == "minigpt2/ops/adamw"
    assert BOOK.kernels["kernels/decode_attention"] == "minigpt2/inference/kv_cache"


def test_documents_are_in_reading_order():
    names = ["kernels/gelu", "minigpt2/model/config", "tests/plain", "minigpt2/ops/gelu"]
    assert BOOK.ordered(names) == [names[3], names[1], names[2], names[0]]


def address(target):
    return f"{target.document}#{target.anchor}"


def code_of(page):
    """The code of a listing, without the numbers of its lines."""
    page = re.sub(r'<a class="line"[^>]*>\d+</a>', "", page)
    return html.unescape(re.sub(r"<[^>]*>", "", page))


@pytest.mark.parametrize("name", ["minigpt2/ops/gelu", "kernels/gelu", "kernels/attention_mma"])
def test_a_listing_is_the_code_with_links(name):
    text = BOOK.sources[name]
    language = "cuda" if name.startswith("kernels/") else "python"
    page = listing(text, language, 1, BOOK, address)
    assert code_of(page).rstrip("\n") == text.rstrip("\n")
    lines = re.findall(r'<span id="L-(\d+)"><a class="line" href="#L-(\d+)">(\d+)</a>', page)
    assert lines == [(str(n),) * 3 for n in range(1, len(text.splitlines()) + 1)]


def test_a_listing_leads_to_equations_modules_and_headers():
    code = "from minigpt2.ops.gelu import gelu\n\ny = f(5.3)  # (5.3), (0.5)\n"
    page = listing(code, "python", 7, BOOK, address)
    assert 'href="minigpt2/ops/gelu#"' in page
    assert page.count('href="minigpt2/ops/gelu#eq-5-3"') == 1
    assert "(0.5)</span>" in page
    assert 'id="L-9"' in page and 'id="L-6"' not in page
    cuda = listing('#include "reduce.cuh"\n#include "none.cuh"\n', "cuda", 1, BOOK, address)
    assert cuda.count('href="kernels/reduce#"') == 1


def test_an_example_leads_to_equations_and_has_no_numbers():
    text = ">>> f(5.3)  # (5.3)\n'(0.5)'\n"
    page = listing(text, "pycon", 0, BOOK, address)
    assert page.count('href="minigpt2/ops/gelu#eq-5-3"') == 1
    assert code_of(page).strip() == text.strip() and 'class="line"' not in page


def test_a_link_shows_what_is_there_and_nothing_of_it_is_markup():
    book = BOOK._replace(equations={"5.3": Target("a", "b", 'x < "y"')})
    assert 'title="x &lt; &quot;y&quot;"' in listing("# (5.3)\n", "python", 1, book, address)
