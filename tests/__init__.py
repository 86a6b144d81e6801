"""Tests.

Some replace functions of os and io to see or to disturb what a program does.  In Python 3.10
pathlib has functions of its own for that, bound when it was imported; here it asks os and io, as
later versions do.
"""

import io
import os
import pathlib
import sys


def ask_at_each_call(module, name):
    """Return a function that calls what a module has under a name at that time."""
    return staticmethod(lambda *arguments, **named: getattr(module, name)(*arguments, **named))


if sys.version_info < (3, 11):
    for _name in ("mkdir", "unlink", "rmdir", "rename", "replace", "link", "listdir", "stat"):
        setattr(pathlib._NormalAccessor, _name, ask_at_each_call(os, _name))
    pathlib._NormalAccessor.open = ask_at_each_call(io, "open")
