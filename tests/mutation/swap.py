"""Code of a running process, replaced by that of a mutant."""

import gc
import re
import sys
from functools import _lru_cache_wrapper
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import get_origin

IMPORTERS = ("minigpt2", "tests")
UNSEEN = ("__module__", "__doc__", "__dict__", "__weakref__", "__annotations__")


def objects() -> list:
    """All objects that the garbage collector knows; it shows none of those that are frozen."""
    gc.unfreeze()
    return gc.get_objects()


def functions_by_code(root: Path) -> dict[tuple[str, int, str], list[FunctionType]]:
    """All functions that exist, by the file, first line and name of their code."""
    functions = {}
    for item in objects():
        if isinstance(item, FunctionType) and item.__code__.co_filename.startswith(str(root)):
            functions.setdefault(place_of(item.__code__), []).append(item)
    return functions


def caches() -> list:
    """All caches of the package's functions."""
    return [
        item
        for item in objects()
        if isinstance(item, _lru_cache_wrapper) and item.__module__.startswith("minigpt2")
    ]


def place_of(code: CodeType) -> tuple[str, int, str]:
    """File, first line and name of code."""
    return code.co_filename, code.co_firstlineno, code.co_name


def parts_of(code: CodeType) -> list[CodeType]:
    """The code of the functions, classes and comprehensions within code."""
    return [part for part in code.co_consts if isinstance(part, CodeType)]


def code_at(code: CodeType, path: tuple[str, ...], first: int) -> CodeType:
    """The code of the function with a path and a first line."""
    for part in parts_of(code):
        if part.co_name == path[0]:
            if len(path) > 1:
                return code_at(part, path[1:], first)
            if part.co_firstlineno == first:
                return part
    raise LookupError(path)


def swap(old: CodeType, new: CodeType, functions) -> int:
    """Give functions that exist the new code, those within others too; return how many."""
    count = 0
    for function in functions.get(place_of(old), ()):
        if len(function.__code__.co_freevars) == len(new.co_freevars):
            function.__code__ = new
            count += 1
    if len(parts_of(old)) == len(parts_of(new)):
        for pair in zip(parts_of(old), parts_of(new), strict=True):
            count += swap(*pair, functions)
    return count


def run_anew(module: ModuleType, text: str) -> None:
    """Run a module's changed text, and put what comes out otherwise in the place of what exists.

    That is: constants, wherever they have been imported, and default values of arguments and
    fields.  Code of functions stays.
    """
    namespace = {"__name__": module.__name__, "__file__": module.__file__}
    exec(compile(text, module.__file__, "exec", dont_inherit=True), namespace)
    live = {id(new): vars(module).get(name) for name, new in namespace.items()}
    importers = [other for name, other in sys.modules.items() if name.split(".")[0] in IMPORTERS]
    for name, new in namespace.items():
        old = vars(module).get(name)
        if (name.startswith("__") and name != "__all__") or (old is None and new is None):
            continue
        if isinstance(old, ModuleType) or old is new:
            continue
        if callable(old) and get_origin(old) is None:  # not a type for mypy, as Literal[...]
            renew(old, new, live)
        elif shown(old) != shown(new) or " at 0x" in repr(new):  # it may hold functions
            value = new if get_origin(new) else translated(new, live)
            for other in importers:
                if vars(other).get(name) is old:
                    setattr(other, name, value)


def renew(old, new, live) -> None:
    """Give a function or class the default values of another."""
    old, new = (inner(item) for item in (old, new))
    if isinstance(old, FunctionType) and isinstance(new, FunctionType):
        if shown(old.__defaults__) != shown(new.__defaults__):
            old.__defaults__ = translated(new.__defaults__, live)
        if shown(old.__kwdefaults__) != shown(new.__kwdefaults__):
            old.__kwdefaults__ = translated(new.__kwdefaults__, live)
    elif isinstance(old, type) and isinstance(new, type) and old.__module__ == new.__module__:
        for name, value in vars(new).items():
            before = vars(old).get(name)
            if name == "__init__" and value.__code__.co_filename == "<string>":
                old.__init__ = value  # of a dataclass: it makes the default values of fields
            elif callable(inner(before)):
                renew(before, value, live)
            elif name not in UNSEEN and shown(before) != shown(value):
                setattr(old, name, translated(value, live))


def inner(item):
    """What a decorator has wrapped."""
    while True:
        if isinstance(item, property):
            item = item.fget
        elif isinstance(item, (staticmethod, classmethod)) or hasattr(item, "__wrapped__"):
            item = item.__wrapped__
        else:
            return item


def shown(value) -> str:
    """A value as text, without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def translated(value, live):
    """A value with the functions and classes that exist in place of those of the same name."""
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        return type(value)(translated(item, live) for item in value)
    if type(value) is dict:
        return {translated(k, live): translated(v, live) for k, v in value.items()}
    return live[id(value)] if callable(value) and live.get(id(value)) is not None else value
