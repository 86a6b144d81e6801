"""Symbols in prose: which words of a sentence are mathematics, and are set as in an equation.

A word is, if it has a Greek letter, a script, a hat, a root or a sum; if it is one letter, but not
the article; if it is a differential, dx; if it calls a function, ln(2); or if letters in it stand
between operators: 1/C.  What an operator joins belongs together: xᵢ − μ; and so does what is in one
pair of parentheses.  Numbers that are multiplied or compared are, too.  Nothing else is touched.
"""

import re
from collections.abc import Iterator
from itertools import accumulate

from book.formulas import ABOVE, BELOW, FRACTIONS, HAT

DIGIT = rf"[\d{FRACTIONS}]"
SIGN = re.compile(rf"[Α-Ωα-ωℓℒ∂√∇‖∞′^{HAT}{''.join(BELOW)}{''.join(ABOVE)}]")
LETTER = re.compile(r"(?!L[12]$)[B-HJ-Zb-z]\d?|d(?!o$)[a-zA-Z]|\d[A-Z]")  # L1 and L2 are caches
INDEXED = re.compile(r"\|?[A-Za-z]_(?:[A-Za-z]|old|ref|backward)(?![A-Za-z_]).*")
STARRED = re.compile(r"[A-Za-z]+\*(?:\(.*)?")
JOINED = re.compile(
    rf"(?:{DIGIT}|[.,()\[\]|+−·/])*(?:(?<![A-Za-z])[A-Za-z](?![A-Za-z])(?:{DIGIT}|[()\[\]|+−·/])*)+"
)
CONSTANTS = re.compile(r"[\d()]*(?:·\(?(?:\d+|[A-Z]{4,}|[A-Z])\)?)+")
CALL = re.compile(
    r"−?(?:(?:ln|exp|max|min|sin|cos|tanh)(?:\(.*)?|(?:clip|mean|diag|wave|[a-zδ])\(.*)"
)
OPERATORS = frozenset("=·−+/<>≤≥→←≈⟺")
NUMBER = re.compile(rf"\(?[−±]?(?:{DIGIT}|\(−?|[.,)/]|·−?)*{DIGIT}(?:{DIGIT}|[.,()/]|·−?)*")
TUPLE = re.compile(rf"[(\[]−?{DIGIT}[\d.{FRACTIONS}/·−]*,?")
ENTRY = re.compile(r"[a-z]+\[[a-z]\]")
ENDS = ".,;:?!"
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
        if (parts := trimmed(" ".join(words[place:end])))[1] and is_one(words, place, end):
            return end, parts
    return place, ("", "", "")


def is_one(words: list[str], first: int, end: int) -> bool:
    """Whether words are a formula: one of them is, or they are numbers with an operator."""
    run = words[first:end]
    if any(is_formula(word) or is_symbol(words, first + n) for n, word in enumerate(run)):
        return True
    inner = run[1 : len(run) - 1 if run[-1] in OPERATORS else None]
    return any(word in ("=", "·", "/") for word in inner) or (len(run) > 1 and "·" in "".join(run))


def end_of_run(words: list[str], first: int) -> int:
    """Return the place behind the words that may belong to a formula that begins with a word."""
    end = first
    depths = [*accumulate(map(depth_of, words[first:]))]
    for place in range(first, len(words)):
        word = words[place]
        if place > first and is_aside(words, place):
            break
        is_open = place > first and depths[place - first - 1] > 0
        joins = is_joined(words, place) if place > first else is_first(words, place)
        if is_formula(word) or is_symbol(words, place):
            if is_unit(words, place):
                break
            end = place + 1
        elif joins or (is_open and is_inside(word)):
            end = place + 1
        elif word not in OPERATORS or place == first:
            break
        goes_on = word.endswith(",") and depths[place - first] > 0
        if word and word[-1] in ENDS and not goes_on:
            break
    return end


def depth_of(word: str) -> int:
    """Return how many parentheses a word opens, less those that it closes."""
    return sum((sign in "([⟨") - (sign in ")]⟩") for sign in word)


def is_aside(words: list[str], place: int) -> bool:
    """Whether parentheses open with a word that say something of what is before them: W (C, K)."""
    if not words[place].startswith("(") or words[place - 1] in OPERATORS:
        return False
    depths = accumulate(map(depth_of, words[place:]))
    end = next((n for n, depth in enumerate(depths, place + 1) if depth <= 0), len(words))
    return any(sign in " ".join(words[place : end - 1]) for sign in (",", "=", "…"))


def is_first(words: list[str], place: int) -> bool:
    """Whether a word is a number that an operator joins to what follows, or begins a tuple."""
    if TUPLE.fullmatch(words[place]) and words[place][-1] == ",":
        return True
    if place + 1 == len(words) or not NUMBER.fullmatch(words[place]):
        return False
    is_share = words[place][-1] in FRACTIONS and is_formula(words[place + 1])
    return words[place + 1] in OPERATORS or is_share or is_factor(words, place + 1)


def is_factor(words: list[str], place: int) -> bool:
    """Whether parentheses with an operator open behind a number: 2 (P + 1), ½ (1/8)."""
    word, behind = words[place], words[place + 1] if place + 1 < len(words) else ""
    if not NUMBER.fullmatch(words[place - 1]) or words[place - 1][-1] in ENDS + ")":
        return False
    is_sum = behind in OPERATORS and (NUMBER.fullmatch(word) or is_formula(word))
    return word.startswith("(") and bool(is_sum or re.fullmatch(r"\(\d+/\d+\)", word))


def is_inside(word: str) -> bool:
    """Whether a word may be in parentheses of a formula: a number or an a."""
    bare = word.strip(ENDS + "()")
    return (bare in ("a", "A", "…", "") and word != "") or bool(NUMBER.fullmatch(bare))


def is_unit(words: list[str], place: int) -> bool:
    """Whether a word is the s of seconds, behind a number."""
    if words[place].strip(ENDS) != "s" or not place or words[place - 1][-1:] in ENDS:
        return False
    return bool(NUMBER.fullmatch(words[place - 1]))


def is_symbol(words: list[str], place: int) -> bool:
    """Whether a word is the symbol A, and no article: within a sentence, or before an operator."""
    bare, before = words[place].strip(ENDS + "()"), words[place - 1] if place else ""
    if bare not in ("a", "A"):
        return False
    if words[place + 1 : place + 2] and words[place + 1] in OPERATORS:
        return words[place].lstrip("(") == bare
    return bare == "A" and before not in ("", "an") and before[-1] not in ".:?!]\"'"


def is_formula(word: str) -> bool:
    """Whether a word is mathematics by itself."""
    bare = word.strip(ENDS).removesuffix("'s")
    if not bare or "`" in bare or bare in OPERATORS:
        return False
    inner = bare.strip("()")
    is_product = bool(JOINED.fullmatch(bare)) and any(sign in inner for sign in "·/−+|([")
    called = CALL.fullmatch(bare.lstrip("(")) or CONSTANTS.fullmatch(bare)
    named = LETTER.fullmatch(inner) or INDEXED.fullmatch(inner) or STARRED.fullmatch(inner)
    if SIGN.search(bare) or called or named or ENTRY.fullmatch(inner):
        return True
    return is_product and len(inner) > 1 and inner != "I/O"


def is_joined(words: list[str], place: int) -> bool:
    """Whether an operator or a logarithm joins a number, or an a, to what stands before it."""
    bare, before = words[place].rstrip(ENDS + ")"), words[place - 1]
    if NUMBER.fullmatch(bare) or TUPLE.fullmatch(words[place]):
        return before in OPERATORS or bool(CALL.fullmatch(before)) or is_factor(words, place)
    return before in OPERATORS and bare in ("a", "A")


def trimmed(run: str) -> tuple[str, str, str]:
    """Cut off what is the sentence's: punctuation, operators and parentheses without a partner."""
    before, behind = "", ""
    while run:
        is_end = run[-1] in ENDS + " " or run[-1] in OPERATORS
        if is_end or (run[-1] in MATCHING and not is_balanced(run)):
            run, behind = run[:-1], run[-1] + behind
        elif run.endswith("'s"):
            run, behind = run[:-2], "'s" + behind
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
