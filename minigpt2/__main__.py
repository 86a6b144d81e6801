"""`python -m minigpt2` is the command `minigpt2`; both begin here."""

import signal
import sys


def main() -> int:
    """Run the command line; return the exit code.

    Until the command begins, there is nothing to save: Ctrl-C ends the program at once, and
    SIGUSR1 does nothing.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from minigpt2.signals import SAVING, pass_over, set_handler

    set_handler(SAVING, pass_over)
    from minigpt2 import cli, terminal  # importing takes a moment

    sys.excepthook = terminal.report_bug
    code = cli.main()
    set_handler(SAVING, signal.SIG_IGN)  # while Python ends, no handler of its is called
    return code


if __name__ == "__main__":
    raise SystemExit(main())
