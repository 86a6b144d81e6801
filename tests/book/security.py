"""Security: nothing that is read is run.  The rules, over the syntax trees of the package.

A file of a user, of a model or of the hub is data.  So no library that makes objects or runs
programs of data is used, and those that could be misused are used in one place each.
"""

import ast
import re

from tests.book.rules import at

# Libraries that make objects of any class of bytes, run programs, or unpack folders.
LIBRARIES = re.compile(
    r"(pickle|_pickle|marshal|shelve|dill|cloudpickle|joblib|torch|runpy|code|codeop|pty|tarfile"
    r"|zipfile|xml|socketserver|http\.server)(\..*)?"
)
# What runs a text as a program, or gives it to a shell.
NEVER = re.compile(
    r"(builtins\.)?(eval|exec|compile|__import__)"
    r"|os\.(system|popen|exec[lv]p?e?|spawn[lv]p?e?|posix_spawnp?|startfile|fork|forkpty)"
    r"|subprocess\.(getoutput|getstatusoutput)|shutil\.unpack_archive"
    r"|tempfile\.mktemp"  # another process can take the name first
    r"|numpy\.(load|loads|memmap|genfromtxt|lib\..*)"
    r"|jinja2\.Template|(jinja2|markupsafe)\.Markup"
)
# The names of PyYAML that make nothing but nodes, or write.
YAML = {
    *("Node", "ScalarNode", "SequenceNode", "MappingNode", "YAMLError", "MarkedYAMLError"),
    *("SafeLoader", "compose", "safe_dump"),
}
KINDS = (ast.Import, ast.ImportFrom, ast.Attribute, ast.Name, ast.Call)  # nodes with faults
KEYWORDS = {"allow_pickle", "shell"}  # of calls, whatever their value
METHODS = {"from_string", "unsafe_load", "full_load"}
ONLY_IN = {
    "subprocess": {"device/compile", "device/sanitizer"},  # the C++ compiler and its tools
    "tempfile": {"device/compile", "device/sanitizer"},
    "jinja2": {"reports/html"},
    "importlib.import_module": {"__init__", "cli"},  # of names that are listed
    "ctypes.CDLL": {"blas", "memory", "device/emulator", "device/cublaslt"},
    "ctypes.PyDLL": {"blas"},
    "ctypes.cdll": set(),
}


def security_faults(sources):
    """Uses of what could run what is read."""
    faults = []
    for module, text in sources.items():
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, KINDS)]
        names = imported_names(nodes)
        for node in nodes:
            faults += [at(module, line, what) for line, what in faults_of(node, names, module)]
    return list(dict.fromkeys(faults))


def imported_names(nodes):
    """What each name that a file imports stands for, in full."""
    names = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return names


def full_name(node, names):
    """What an expression names, in full; "" if it is no name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        before = full_name(node.value, names)
        return f"{before}.{node.attr}" if before else ""
    return ""


def faults_of(node, names, module):
    """Yield (line, what is wrong with it) for one node of a syntax tree."""
    used, is_import = [], True
    if isinstance(node, ast.Import):
        used = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        used = [f"{node.module}.{alias.name}" for alias in node.names]
    elif isinstance(node, ast.Attribute | ast.Name):
        used, is_import = [full_name(node, names)], False
    for name in used:
        if is_import and LIBRARIES.fullmatch(name):
            yield node.lineno, f"imports {name}"
        if NEVER.fullmatch(name):
            yield node.lineno, f"uses {name}"
        if name.startswith("yaml.") and name.split(".")[1] not in YAML:
            yield node.lineno, f"uses {name}"
        for library, modules in ONLY_IN.items():
            if f"{name}.".startswith(f"{library}.") and module not in modules:
                yield node.lineno, f"uses {library}"
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg in KEYWORDS:
                yield node.lineno, f"passes {keyword.arg}"
            if keyword.arg == "autoescape" and ast.unparse(keyword.value) != "True":
                yield node.lineno, "does not escape"
        if full_name(node.func, names).startswith("subprocess.") and not is_list(node):
            yield node.lineno, "runs a text, not a list"
        escapes = any(keyword.arg == "autoescape" for keyword in node.keywords)
        if full_name(node.func, names) == "jinja2.Environment" and not escapes:
            yield node.lineno, "does not escape"
    if isinstance(node, ast.Attribute) and node.attr in METHODS:
        yield node.lineno, f"uses {node.attr}"


def is_list(call):
    """Whether the program that a call runs is a list of words, or a variable (with its type)."""
    return bool(call.args) and isinstance(call.args[0], ast.List | ast.Name)


def page_faults(pages):
    """Values in pages that are not escaped, but for the curves, which matplotlib draws."""
    faults = []
    for name, text in pages.items():
        for number, line in enumerate(text.splitlines(), start=1):
            marks = re.findall(r"\|\s*safe\b|autoescape|<script|\bon\w+=|\b(?:href|src)=", line)
            if marks and "{{ curves | safe }}" not in line:
                faults.append(f"pages/{name}:{number}: {marks[0]}")
            for attribute in re.findall(r"(?<=[\s\"'])[\w-]+=(?=\{\{)", line):
                faults.append(f"pages/{name}:{number}: {attribute} without quotation marks")
    return faults
