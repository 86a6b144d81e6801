"""`python -m minigpt2` is the command `minigpt2`; both begin here.

Importing the command line takes a moment, in which Ctrl-C is as quiet as later.
"""


def main() -> int:
    """Run the command line; return the exit code."""
    try:
        from minigpt2 import cli
    except KeyboardInterrupt:
        return 130
    return cli.main()


if __name__ == "__main__":
    raise SystemExit(main())
