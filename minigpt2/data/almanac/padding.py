"""Padding: words around an answer that say nothing.

Most people prefer a direct answer.  The almanac's answers are direct, so some are padded here:
they get an opening and a closing.  An answer's content is what is left without both.

    >>> padded("It is Paris.", OPENINGS[0], CLOSINGS[0])
    'Well, let us see. It is Paris. That is the answer to the question.'
    >>> content(_), is_direct(_)
    ('It is Paris.', False)
"""

OPENINGS = (
    "Well, let us see.",
    "That is a good question.",
    "Let me think about this.",
    "I am glad to answer.",
)
CLOSINGS = (
    "That is the answer to the question.",
    "I hope that this is of help.",
    "You can ask me more questions.",
    "This is all that I can say.",
)


def padded(answer: str, opening: str, closing: str) -> str:
    """Return an answer between an opening and a closing."""
    return f"{opening} {answer} {closing}"


def content(answer: str) -> str:
    """Return an answer without its opening and its closing, if it has one."""
    for opening in OPENINGS:
        if answer.startswith(opening):
            answer = answer.removeprefix(opening).lstrip(" ")
            break
    for closing in CLOSINGS:
        if answer.endswith(closing):
            return answer.removesuffix(closing).rstrip(" ")
    return answer


def is_direct(answer: str) -> bool:
    """Whether an answer has neither an opening nor a closing."""
    return content(answer) == answer
