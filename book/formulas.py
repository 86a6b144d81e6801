"""Formulas: an equation of plain text as MathML, the browser's own way to set mathematics.

    xᵢ, x̂, β₁ˢ, m′          a letter with what stands below, above and beside it
    π_ref, Σ_{k>i}, β^(s−j)  the same for what Unicode has no small letters for
    √(v + ε), √v̂             a root of what is in parentheses, or of one letter
    dx, ∂x, ln, exp, token   one letter is italic, a word upright; dx is d and x

Nothing is computed or turned round: every character keeps its place.
"""

import html
import re
from typing import NamedTuple

BELOW = dict(zip("ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ₀₁₂₃₄₅₆₇₈₉₊₋₌", "aehijklmnoprstuvx0123456789+−=", strict=True))
ABOVE = dict(
    zip(
        "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂ⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺",
        "abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVW0123456789−+",
        strict=True,
    )
)
FRACTIONS = "½⅓¼¾⅔"
HAT = "\N{COMBINING CIRCUMFLEX ACCENT}"

TOKEN = re.compile(
    r"(?P<space>\s+)"
    rf"|(?P<number>\d+(?:,\d{{3}})*(?:\.\d+)?(?:e-\d+)?|[{FRACTIONS}])"
    r"|(?P<constant>[A-Z]{2,}_[A-Z]+|d_[a-z]{2,})"
    r"|(?P<word>[A-Za-z]+(?:[-'][A-Za-z]+)*\d?|[Α-ΡΤ-Ωα-ωℓℒ∂∞…])"
    rf"|(?P<hat>{HAT})"
    rf"|(?P<below>[{''.join(BELOW)}]+)"
    rf"|(?P<above>[{''.join(ABOVE)}]+|′+)"
    r"|_(?P<name>[A-Za-z]+(?:,[a-z])?|\{[^}]*\})"
    rf"|\^(?P<power>\([^()]*(?:\([^()]*\)[^()]*)*\)|[-−]?\d+|[{FRACTIONS}])"
    r"|(?P<root>√)"
    r"|(?P<operator>\+=|.)"
)
FUNCTIONS = {"exp", "ln", "max", "min", "tanh", "sin", "cos", "clip"}
DIFFERENTIAL = re.compile(r"d[A-Za-z]")
OPENING, CLOSING = "([{⟨⌈", ")]}⟩⌉"
TIGHT = "|‖/∇"  # operators with no space beside them
THIN, WIDE = (f'<mspace width="{width}"></mspace>' for width in ("0.17em", "1.2em"))
BETWEEN_WORDS = '<mspace width="0.3em"></mspace>'


class Token(NamedTuple):
    """A piece of a formula: what it is, and its characters."""

    kind: str
    text: str


class Atom(NamedTuple):
    """What scripts belong to, and the scripts: MathML each, '' for none."""

    base: str
    below: str = ""
    above: str = ""

    def markup(self) -> str:
        """Return the MathML of the atom."""
        if self.below and self.above:
            return f"<msubsup>{self.base}{row(self.below)}{row(self.above)}</msubsup>"
        if self.below:
            return f"<msub>{self.base}{row(self.below)}</msub>"
        return f"<msup>{self.base}{row(self.above)}</msup>" if self.above else self.base


def mathml(text: str) -> str:
    """Return a formula as a MathML element."""
    return f"<math>{inside(text)}</math>"


def inside(text: str) -> str:
    """Return the MathML of a formula, without the element around it."""
    tokens = [
        Token(str(match.lastgroup), match[str(match.lastgroup)]) for match in TOKEN.finditer(text)
    ]
    atoms: list[Atom] = []
    place = 0
    while place < len(tokens):
        token = tokens[place]
        if token.kind in ("hat", "below", "above", "name", "power") and atoms:
            atoms[-1] = scripted(atoms[-1], token)
            place += 1
        elif token.kind == "root":
            end = end_of_root(tokens, place + 1)
            atoms.append(Atom(f"<msqrt>{inside(root_of(tokens[place + 1 : end]))}</msqrt>"))
            place = end
        elif is_star(tokens, place):
            atoms[-1] = atoms[-1]._replace(above=atoms[-1].above + "<mo>∗</mo>")
            place += 1
        else:
            atoms += atoms_of(tokens, place)
            place += 1
    return "".join(atom.markup() for atom in atoms)


def scripted(atom: Atom, token: Token) -> Atom:
    """Return an atom with a script more."""
    if token.kind == "hat":
        return atom._replace(base=f'<mover accent="true">{atom.base}<mo>^</mo></mover>')
    if token.kind == "below":
        gap = THIN if atom.below and token.text[0] not in "₊₋" else ""
        return atom._replace(below=atom.below + gap + letters(token.text, BELOW))
    if token.kind == "name":
        return atom._replace(below=atom.below + inside(token.text.strip("{}")))
    if token.kind == "power":
        return atom._replace(above=atom.above + inside(unwrapped(token.text)))
    if token.text[0] == "′":  # that of a letter below, as in ℓₙᵥ′, if there is one
        return prime(atom, token.text)
    return atom._replace(above=atom.above + letters(token.text, ABOVE))


def prime(atom: Atom, text: str) -> Atom:
    """Return an atom with a prime, which belongs to the last letter below it if there is one."""
    if not atom.below:
        return atom._replace(above=atom.above + f"<mo>{text}</mo>")
    head, mark, last = atom.below.rpartition("<mi>")
    return atom._replace(below=f"{head}<msup>{mark}{last}<mo>{text}</mo></msup>")


def letters(text: str, table: dict[str, str]) -> str:
    """Return scripts, each letter by itself, and digits that stand together as one number."""
    parts = re.findall(r"\d+|.", "".join(table[character] for character in text))
    return "".join(inside(part) for part in parts)


def row(markup: str) -> str:
    """Return MathML as one element."""
    return f"<mrow>{markup}</mrow>"


def end_of_root(tokens: list[Token], place: int) -> int:
    """Return the place behind what a root is of: parentheses, or one letter with its hat."""
    if place == len(tokens):
        return place
    if tokens[place].text != "(":
        return place + 1 + (place + 1 < len(tokens) and tokens[place + 1].kind == "hat")
    depth = 0
    for end in range(place, len(tokens)):
        depth += (tokens[end].text == "(") - (tokens[end].text == ")")
        if depth == 0:
            return end + 1
    return len(tokens)


def root_of(tokens: list[Token]) -> str:
    """Return the text under a root, without the parentheses around it."""
    text = "".join(source_of(token) for token in tokens)
    return unwrapped(text)


def unwrapped(text: str) -> str:
    """Return a text without the parentheses around it."""
    return text[1:-1].strip() if text.startswith("(") else text


def source_of(token: Token) -> str:
    """Return a token as it stands in the source."""
    return {"name": "_", "power": "^"}.get(token.kind, "") + token.text


def is_star(tokens: list[Token], place: int) -> bool:
    """Whether a token is the star of π* or drop*(dy), which follows a name at once."""
    is_beside = place > 0 and tokens[place - 1].kind in ("word", "below", "name")
    return tokens[place].text == "*" and is_beside


def atoms_of(tokens: list[Token], place: int) -> list[Atom]:
    """Return the atoms of a token that is no script."""
    kind, text = tokens[place]
    if kind == "space":
        return [Atom(space_of(tokens, place))]
    if kind == "number":
        return [Atom(f"<mn>{text}</mn>")]
    if kind == "constant":
        return [Atom(f"<mtext>{text}</mtext>")]
    if kind == "word" and is_d(text):
        return [Atom("<mi>d</mi>"), Atom(f"<mi>{text[1]}</mi>")]
    if kind == "word":
        return [Atom(f"<mi>{html.escape(text)}</mi>")]
    return [Atom(operator(text, before=previous(tokens, place)))]


def previous(tokens: list[Token], place: int) -> Token | None:
    """Return the token before a place that is no space."""
    behind = [token for token in tokens[:place] if token.kind != "space"]
    return behind[-1] if behind else None


def operator(text: str, before: Token | None) -> str:
    """Return an operator; a sign, and not a difference, where nothing comes before it."""
    shown = html.escape("∑" if text == "Σ" else text)
    if text in OPENING + CLOSING:
        return f'<mo stretchy="false">{shown}</mo>'
    if text in TIGHT:
        return f'<mo stretchy="false" lspace="0" rspace="0">{shown}</mo>'
    if text in "→←⟺⟹":
        return f'<mo stretchy="false">{shown}</mo>'
    if text == "Σ":
        return f'<mo lspace="0" rspace="0.1em">{shown}</mo>'
    is_sign = before is None or (before.kind == "operator" and before.text not in CLOSING + "|‖")
    form = ' form="prefix"' if text in "−+" and is_sign else ""
    return f"<mo{form}>{shown}</mo>"


def space_of(tokens: list[Token], place: int) -> str:
    """Return a space: wide for two or more, thin for a product, none next to an operator.

    A word keeps its distance, but for the name of a function.
    """
    if len(tokens[place].text) > 1:
        return WIDE
    near = [tokens[n] for n in (place - 1, place + 1) if 0 <= n < len(tokens)]
    free = [t for t in near if t.kind != "operator" or t.text in OPENING + CLOSING + TIGHT + "Σ"]
    inner = len(near) == 2 and (near[0].text in OPENING or near[1].text in CLOSING)
    after_comma = len(near) == 2 and near[0].text == "," and is_long(near[1])
    if any(map(is_long, near)) and not inner and (len(free) == 2 or after_comma):
        return BETWEEN_WORDS
    return THIN if len(free) == 2 and not inner else ""


def is_long(token: Token) -> bool:
    """Whether a token is a word of a sentence, and no letter, differential or function."""
    text = token.text
    return token.kind == "word" and len(text) > 1 and text not in FUNCTIONS and not is_d(text)


def is_d(text: str) -> bool:
    """Whether a word is a differential: dx."""
    return bool(DIFFERENTIAL.fullmatch(text))
