"""Fuzzing: every reader of files gets damaged, odd and hostile ones, as many as there is time for.

Whatever a file holds, its reader returns a value that can be used, or raises UserError with one
line that names the file, in bounded time and memory.  All else is a finding.

    readers     the readers, the files that each begins with, and what is done with what it accepts
    mutate      how an input is made from others
    attempt     one input: what becomes of it
    fuzzer      a reader, inputs for it, and what they have come to
    run         the same in a process of its own, with limits and with Atheris
    __main__    all readers in turn, and a table

`make fuzz MINUTES=10` gives each reader so many minutes.  Where Atheris is installed, it chooses
the inputs that reach branches which no input reached before; elsewhere those that are refused for
a new reason are kept.  `make test` runs a few inputs of each reader from a fixed seed.
"""
