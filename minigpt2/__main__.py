"""`python -m minigpt2` is the command `minigpt2`."""

from minigpt2.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
