"""`python -m minigpt2` is the command `minigpt2`; both begin here."""

import signal
import sys


def main() -> int:
    """Run the command line; return the exit code.

    Until the command begins, there is nothing to save: Ctrl-C ends the program at once.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from minigpt2 import cli, terminal  # importing takes a moment

    sys.excepthook = terminal.report_bug
    return cli.main()


if __name__ == "__main__":
    raise SystemExit(main())
