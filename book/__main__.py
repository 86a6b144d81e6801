"""Write the pages of the book."""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from sphinx.cmd.build import main

HERE = Path(__file__).parent


def write_book(folder: str) -> int:
    """Write the pages into a folder; returns 0, or another number if anything was wrong."""
    with TemporaryDirectory() as read:  # what Sphinx has read of the sources
        settings = ["-b", "html", "-c", str(HERE), "-d", read, "--jobs", "auto"]
        strict = ["--fresh-env", "--fail-on-warning", "--keep-going"]
        return main([*settings, *strict, str(HERE.parent), folder])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m book", description=__doc__)
    parser.add_argument("folder", nargs="?", default="build/book", help="default: build/book")
    folder = parser.parse_args().folder
    code = write_book(folder)
    if not code:
        print(f"\nopen {folder}/index.html in a browser")
    sys.exit(code)
