"""The rules of the house, read from its source: settings, sizes, tests' places, names, words.

Every rule is a function from source text to a list of faults, each with its file and line.
"""

import ast
import re
from itertools import pairwise
from typing import NamedTuple

from book.parse import comments_of, contents_of
from tests.book.rules import at

# (a) Settings end in the commands.


def names_in(tree):
    """(line, name) of every name in code: defined, used, imported, or quoted in an annotation."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.alias):
            yield node.lineno, node.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from ((node.lineno, name) for name in re.findall(r"^\w+$", node.value))


def settings_faults(sources):
    """Classes of settings that a module outside cli and commands/ names."""
    faults = []
    for module, text in sources.items():
        if module == "cli" or module.startswith("commands/"):
            continue
        for line, name in sorted(set(names_in(ast.parse(text)))):
            if name.endswith("Settings"):
                faults.append(at(module, line, f"names {name}"))
    return faults


# (b) Files, functions and lists of parameters are short.

LIMITS = {"file lines": 250, "lines": 50, "parameters": 7}


class Size(NamedTuple):
    """How long something is, by one measure."""

    module: str
    line: int
    name: str  # of the function; empty for the file
    measure: str
    size: int


def sizes_of(module, text):
    """The sizes of a file and of its functions.

    Parameters are those that may be given by place; self and cls are not given.
    """
    yield Size(module, 1, "", "file lines", len(text.splitlines()))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            by_place = [*node.args.posonlyargs, *node.args.args, *filter(None, [node.args.vararg])]
            parameters = sum(parameter.arg not in ("self", "cls") for parameter in by_place)
            yield Size(module, node.lineno, node.name, "lines", lines)
            yield Size(module, node.lineno, node.name, "parameters", parameters)


def size_faults(sources, exceptions):
    """What is too long, and exceptions that are not needed.

    `exceptions` maps (module, function or "", measure) to the reason why this one may be longer.
    """
    faults, needed = [], set()
    for module, text in sources.items():
        for _, line, name, measure, size in sizes_of(module, text):
            if size > LIMITS[measure]:
                needed.add((module, name, measure))
                if (module, name, measure) not in exceptions:
                    what = f"{name or 'the file'} has {size} {measure.split()[-1]}"
                    faults.append(at(module, line, f"{what}, over {LIMITS[measure]}"))
    return faults + [f"exception {key} is not needed" for key in exceptions.keys() - needed]


# (c) A chapter has a test file of its own name in the mirrored folder.


def tests_of(module):
    """Where the tests of a module are: ops/gelu -> ops/test_gelu.py."""
    folder, slash, name = module.rpartition("/")
    return f"{folder}{slash}test_{name}.py"


def untested_faults(sources, test_files, exceptions):
    """Chapters without a test file, and exceptions that are not needed.

    `exceptions` maps a chapter to the reason why its tests are elsewhere.
    """
    chapters = contents_of(sources).numbers
    lacking = [module for module in chapters if tests_of(module) not in test_files]
    faults = [
        at(module, 1, f"tests/{tests_of(module)} is missing")
        for module in lacking
        if module not in exceptions
    ]
    needless = [module for module in exceptions if module not in lacking]
    return faults + [f"exception {module} is not needed" for module in needless]


# (d) Variables are named after what they hold.

VAGUE = {
    *("found", "told", "there", "how", "which", "one"),
    *("asked", "given", "said", "kept", "tried"),
}
NAMED = ast.FunctionDef | ast.ClassDef | ast.ExceptHandler | ast.MatchAs | ast.MatchStar


def bindings_of(tree):
    """(line, name) of every variable, parameter, attribute, function and class that is bound."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, NAMED):
            yield node.lineno, node.name
        elif isinstance(node, ast.alias):
            yield node.lineno, node.asname


def name_faults(sources):
    """Variables whose name says nothing about what they hold."""
    return [
        at(module, line, f"a variable named {name}")
        for module, text in sources.items()
        for line, name in sorted({pair for pair in bindings_of(ast.parse(text)) if pair[1]})
        if name in VAGUE
    ]


# (e) Sentences say things in the usual words.

PHRASES = {
    r"\b(told|tells?) of\b": "about",
    r"\b(is|are|was|were|be) (told|said)\b": "is stated, is printed",
    r"\bstands? (there|beside|in none|in several)\b": "is",
    r"\bgo(es)? on\b": "continues",
    r"\bcarr(y|ies) on\b": "continues",
    r"\bbeside\b": "next to, compared with",
    r"\b(made|makes?)( the rest| \w)? again\b": "recomputed",
    r"\bon the way back\b": "in the backward pass",
    r"\bput over\b": "overwrites",
    r"\b(?!there\b|where\b)\w+ (is|are) no (?!longer|more|less|better|worse|other)": "is not a",
    r"\bmend(s|ed)?\b": "fix",
}


def strings_of(text):
    """(line, text) of every string, docstrings among them, and of every comment."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    yield from comments_of(text)


def phrase_faults(sources):
    """Phrases that a reader stumbles over, in docstrings, help texts, messages and comments."""
    faults = []
    for module, text in sources.items():
        for first, words in sorted(strings_of(text)):
            for phrase, instead in PHRASES.items():
                for match in re.finditer(phrase.replace(" ", r"\s+"), words, re.IGNORECASE):
                    line = first + words[: match.start()].count("\n")
                    quote = " ".join(match[0].split())
                    faults.append(at(module, line, f"{quote!r}: better {instead!r}"))
    return faults


# (f) All that is printed goes through three modules, which spell control codes.

PRINTERS = {"terminal", "reports/screen", "reports/progress"}
WAYS = re.compile(
    r"sys\.(__)?std(in|out|err)(__)?|(builtins\.)?print|input\(.*|os\.write|.+\.from_(markup|ansi)"
)
LIBRARIES = re.compile(r"(rich(?!\.(table|text)$)|logging|warnings|curses|tqdm|click|getpass)\b")


def printing_of(tree):
    """(line, what) of everything that reads or writes a stream, or could."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute | ast.Call):
            if WAYS.fullmatch(code := ast.unparse(node)):
                yield node.lineno, f"uses {code}"
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if LIBRARIES.match(alias.name)]
            yield from ((node.lineno, f"imports {name}") for name in names)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            if LIBRARIES.match(node.module or ""):
                yield node.lineno, f"imports {node.module}"
            yield from ((node.lineno, f"uses {name}") for name in names if WAYS.fullmatch(name))


def printing_faults(sources, exceptions):
    """What a module prints or reads past terminal and reports/screen.

    `exceptions` maps (module, what) to the reason why this prints nothing.
    """
    faults, needed = [], set()
    for module, text in sources.items():
        if module in PRINTERS:
            continue
        for line, what in printing_of(ast.parse(text)):
            needed.add((module, what))
            if (module, what) not in exceptions:
                faults.append(at(module, line, f"{what}: print through terminal or reports/screen"))
    return faults + [f"exception {key} is not needed" for key in exceptions.keys() - needed]


# (g) A number and what it counts agree: 1 token, 2 tokens.

COUNTED = "token step example entry question answer row prompt turn layer parameter target id value"
COUNTED += (
    " file character cell argument array digit word pair exchange piece name number place feature"
)
PLURALS = "|".join(re.sub(r"y$", "ie", noun) + "s" for noun in COUNTED.split())
COUNT = re.compile(rf" (?!is|has|holds|in|of|than|from)(?:\w+ )?(?:{PLURALS})\b(?!/)")


def plural_faults(sources, exceptions):
    """Numbers that are followed by a plural, in a text that does not ask whether it is one.

    `exceptions` maps (module, words) to the reason why the number is never 1.
    """
    faults, needed = [], set()
    for module, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            parts = node.values if isinstance(node, ast.JoinedStr) else []
            for number, after in pairwise(parts):
                match = isinstance(after, ast.Constant) and COUNT.match(after.value)
                if match and isinstance(number, ast.FormattedValue):
                    needed.add((module, words := match[0].strip()))
                    if (module, words) not in exceptions:
                        faults.append(at(module, after.lineno, f"{words!r}: use plural()"))
    return faults + [f"exception {key} is not needed" for key in exceptions.keys() - needed]
