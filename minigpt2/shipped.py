"""Shipped files: where what ships beside the package is found.

Kernels and small weights stand beside the package in the repository and inside it where it is
installed; nothing else needs to know which.
"""

from pathlib import Path

HERE = Path(__file__).parent


def shipped(name: str) -> Path:
    """Return the place of something that ships beside the package, such as `weights/tiny`."""
    installed = HERE / "_shipped" / name
    return installed if installed.exists() else HERE.parent / name
