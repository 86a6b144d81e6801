"""Errors: what a user can mend is said in one line.

Everything that can be wrong with a file, a setting or a name that a user gave
is raised as `UserError`; the command line prints its text and exits with 2.
Any other exception is a bug of this project.
"""


class UserError(ValueError):
    """Something the user gave cannot be used; the text says what, where, and what to do."""
