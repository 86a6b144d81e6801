"""Symbols in prose: which words of a sentence are mathematics, and are set as in an equation.

A word is, if it has a Greek letter, a script, a hat, a root or a sum; if it is one letter, but not
the article; if it is a differential, dx; or if letters in it stand between operators: 1/C.  What an
operator joins belongs together: xᵢ − μ.  Nothing else is touched.
"""

import re
from collections.abc import Iterator

from book.formulas import ABOVE, BELOW, HAT

SIGN = re.compile(rf"[Α-Ωα-ωℓℒ∂√∇‖∞′{HAT}{''.join(BELOW)}{''.join(ABOVE)}]")
LETTER = re.compile(r"[B-HJ-Zb-z]\d?|d(?!o$)[a-zA-Z]")
JOINED = re.compile(r"[\d.,()\[\]|+−·/]*(?:(?<![A-Za-z])[A-Za-z](?![A-Za-z])[\d()\[\]|+−·/]*)+")
CALL = re.compile(r"(?:ln|exp|max|min|sin|cos|tanh)(?:\(.*)?")
OPERATORS = frozenset("=·−+/<>≤≥→←≈⟺")
NUMBER = re.compile(r"−?[\d.,()/·]*\d[\d.,()/·]*")
ENTRY = re.compile(r"[a-z]+\[[a-z]\]")
MATCHING = {")": "(", "]": "[", "⟩": "⟨"}


def pieces_of(text: str) -> Iterator[tuple[str, bool]]:
    """Cut a text into (piece, whether it is a formula); together the pieces are the text."""
    words = text.split(" ")
    place, plain = 0, ""
    while place < len(words):
        end, (before, formula, behind) = formula_at(words, place)
        if not formula:
            plain += words[place] + " "
            place += 1
            continue
        if plain + before:
            yield plain + before, False
        yield formula, True
        plain = behind + " "
        place = end
    if plain[:-1]:
        yield plain[:-1], False


def formula_at(words: list[str], place: int) -> tuple[int, tuple[str, str, str]]:
    """Return where the formula ends that begins with a word, and what is around it; it may be ''.

    It is the longest in which each parenthesis has its partner.
    """
    for end in range(end_of_run(words, place), place, -1):
        if (parts := trimmed(" ".join(words[place:end])))[1]:
            return end, parts
    return place, ("", "", "")


def end_of_run(words: list[str], first: int) -> int:
    """Return the place behind the formula that begins with a word, or the word's, if none does."""
    end, found = first, False
    for place in range(first, len(words)):
        word = words[place]
        if is_formula(word):
            end, found = place + 1, True
        elif is_joined(words, place) if place > first else is_factor(words, place):
            end = place + 1
        elif word not in OPERATORS or place == first:
            break
        if word[-1:] in ".,;:" or word.endswith(("),", ").")):
            break
    return end if found else first


def is_factor(words: list[str], place: int) -> bool:
    """Whether a word is a number that an operator joins to what follows."""
    is_number = bool(NUMBER.fullmatch(words[place]))
    return is_number and words[place + 1 : place + 2] != [] and words[place + 1] in OPERATORS


def is_formula(word: str) -> bool:
    """Whether a word is mathematics by itself."""
    bare = word.strip(".,;:")
    if not bare or "`" in bare or bare in OPERATORS:
        return False
    inner = bare.strip("()")
    is_product = bool(JOINED.fullmatch(bare)) and any(sign in bare for sign in "·/−+|([")
    named = LETTER.fullmatch(inner) or CALL.fullmatch(bare)
    return bool(SIGN.search(bare) or named or (is_product and len(inner) > 1 and inner != "I/O"))


def is_joined(words: list[str], place: int) -> bool:
    """Whether an operator or a logarithm joins a number, a or end[j] to what stands before it."""
    bare, before = words[place].rstrip(".,;:)"), words[place - 1]
    if NUMBER.fullmatch(bare):
        return before in OPERATORS or bool(CALL.fullmatch(before))
    return before in OPERATORS and (bare in ("a", "A") or bool(ENTRY.fullmatch(bare)))


def trimmed(run: str) -> tuple[str, str, str]:
    """Cut off what is the sentence's: punctuation, operators and parentheses without a partner."""
    before, behind = "", ""
    while run:
        is_end = run[-1] in ".,;: " or run[-1] in OPERATORS
        if is_end or (run[-1] in MATCHING and not is_balanced(run)):
            run, behind = run[:-1], run[-1] + behind
        elif run[0] in "([⟨" and not is_balanced(run):
            before, run = before + run[0], run[1:]
        else:
            break
    return (before, run, behind) if is_balanced(run) else ("", "", "")


def is_balanced(text: str) -> bool:
    """Whether each parenthesis has its partner."""
    open_ones: list[str] = []
    for character in text:
        if character in MATCHING.values():
            open_ones.append(character)
        elif character in MATCHING and (not open_ones or open_ones.pop() != MATCHING[character]):
            return False
    return not open_ones
