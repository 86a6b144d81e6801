"""Imbalance: the measurement of the chapter before, as tables and as a picture.

This is `minigpt2 imbalance`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from minigpt2.commands.dataset import open_data
from minigpt2.commands.setup import open_start
from minigpt2.data.examples import encode
from minigpt2.data.template import open_template
from minigpt2.data.truncation import Policy, truncate_all
from minigpt2.errors import UserError, require_at_least, require_picture
from minigpt2.reports.tables import table_of
from minigpt2.training.gradient_imbalance import Imbalance, Products, measure

GROUPS = 4  # of answers by length


@dataclass(frozen=True)
class ImbalanceSettings:
    """Measure where the gradient comes from: prompts or answers, short answers or long ones.

    Args:
        data: file or folder of questions and answers, or "almanac" for the questions that ship
        model: folder of a model, folder of a run, or a name
        from_scratch: take random weights of the model's size
        columns: which field of an entry stands for a format's: {"instruction": "ask"}
        template: alpaca, qa, chat, raw, or a .yaml or .json file with one of your own (default:
            the one that goes with the format)
        context: longest sequence in tokens (default: the model's)
        truncate: what of an example over the context is cut first: prompt, answer, or drop all
        count: how many examples are measured, drawn at random
        weights: prompt weights λ for which the whole gradient is told
        seed: of the draw, and of random weights
        figure: draw the measurement into this PNG, too
    """

    data: str
    model: str = "tiny"
    from_scratch: bool = False
    columns: dict[str, str] | None = None
    template: str | None = None
    context: int | None = None
    truncate: Policy = "prompt"
    count: int = 64
    weights: list[float] = field(default_factory=lambda: [0.0, 0.01, 0.1, 0.5, 1.0])
    seed: int = 0
    figure: Path | None = None

    def __post_init__(self) -> None:
        require_at_least(1, self, "context", "count")
        require_at_least(0, self, "seed")
        if min(self.weights, default=0.0) < 0:
            raise UserError("weights must be at least 0 each")


def imbalance(settings: ImbalanceSettings) -> Imbalance:
    """Measure, print the tables and draw the picture; return the measurement."""
    require_picture(settings, "figure")
    if settings.figure and settings.figure.exists():
        raise UserError(f"{settings.figure} exists already: choose another --figure, or move it")
    console = Console(highlight=False, soft_wrap=True)
    rng = np.random.default_rng([settings.seed, 0])
    with console.status(f"opening {settings.model} and {settings.data}"):
        data = open_data(settings.data, settings.columns)
        parameters, tokenizer = open_start(settings.model, settings.from_scratch, rng)
        template = open_template(settings.template or data.format.template)
        context = settings.context or parameters.config.n_positions
        chosen = rng.permutation(len(data.records))[: settings.count]
        encoded = [encode(data.records[i], tokenizer, template) for i in chosen]
        examples, _ = truncate_all(encoded, context, settings.truncate)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("gradients, example by example", total=len(examples))
        found = measure(parameters, examples, lambda count: bar.advance(task, count))
    console.print(
        f"{settings.model} on {len(examples)} examples of {settings.data}: "
        f"{found.prompt_tokens:,} prompt targets, {found.answer_tokens:,} answer targets",
        markup=False,
    )
    console.print(weight_table(found, settings.weights))
    console.print(part_table(found))
    console.print(group_table(found))
    console.print(
        f"an answer's gradient grows as length^{found.slope:.2f} (0.5 to 1 where tokens of short "
        "and long answers are alike),"
    )
    console.print(f"and where examples count the same, as length^{found.slope - 1:.2f}")
    if settings.figure:
        draw(settings.figure, found, settings)
        console.print(f"drawn in {settings.figure}", markup=False)
    return found


def weight_table(found: Imbalance, weights: Sequence[float]) -> Table:
    """Return what each prompt weight makes of the whole gradient."""
    names = ("norm of G(λ)", "prompts' part of the norms", "cosine with answers alone")
    table = table_of("\nThe whole gradient, by the weight λ of a prompt token", "λ", *names)
    for weight in weights:
        whole = found.parts["all"]
        name = {0.0: "0 masked", 1.0: "1 unmasked"}.get(weight, f"{weight:g}")
        size = whole.norm(weight) / (weight * found.prompt_tokens + found.answer_tokens)
        cells = f"{size:.4g}", f"{whole.prompt_share(weight):.1%}", f"{whole.alignment(weight):.3f}"
        table.add_row(name, *cells)
    return table


def part_table(found: Imbalance) -> Table:
    """Return the gradients from prompts and from answers, by part of the model."""
    names = ("prompts, a token", "answers, a token", "cosine")
    table = table_of("\nNorms of the gradients from prompts and from answers", "", *names)
    for name, part in found.parts.items():
        table.add_row(name, *(f"{x:.4g}" for x in per_token(found, part)), f"{part.cosine:+.3f}")
    return table


def per_token(found: Imbalance, part: Products) -> tuple[float, float]:
    """Return ‖G_Q‖ / N_Q and ‖G_A‖ / N_A of a part."""
    prompt, answer = part.qq**0.5, part.aa**0.5
    return prompt / max(1, found.prompt_tokens), answer / found.answer_tokens


def group_table(found: Imbalance) -> Table:
    """Return the shares of short and of long answers."""
    names = ("examples", "of the tokens", "share, tokens alike", "share, examples alike")
    table = table_of("\nShares in the gradient, answers by length", "answer tokens", *names)
    order = np.argsort(found.lengths, kind="stable")
    for group in np.array_split(order, min(GROUPS, len(order))):
        lengths = found.lengths[group]
        shares = (lengths.sum() / found.answer_tokens, found.shares[group].sum())
        cells = (*shares, found.shares_alike[group].sum())
        label = f"{lengths.min()} to {lengths.max()}"
        table.add_row(label, str(len(group)), *(f"{share:.1%}" for share in cells))
    return table


def draw(path: Path, found: Imbalance, settings: ImbalanceSettings) -> None:
    """Write a PNG: shares against length, and norms by part of the model."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
    except ImportError:
        raise UserError("a figure needs matplotlib: pip install 'minigpt2[plot]'") from None
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for shares, label, colour in (
        (found.shares, "tokens count the same", "#b5483a"),
        (found.shares_alike, "examples count the same", "#3b7ea1"),
    ):
        left.scatter(found.lengths, shares, s=14, alpha=0.7, label=label, color=colour)
    left.axhline(1 / len(found.lengths), color="#888", linewidth=1, label="equal shares")
    common, noise = found.fit
    x = np.linspace(found.lengths.min(), found.lengths.max(), 100)
    curve = np.sqrt(x**2 * common + x * noise) / found.norms.sum()
    left.plot(x, curve, color="#b5483a", linewidth=1, label="fit: common direction and noise")
    left.set(xscale="log", yscale="log", xlabel="answer tokens", ylabel="share in the gradient")
    left.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.xaxis.set_major_formatter(ScalarFormatter())
    left.xaxis.set_minor_formatter(NullFormatter())
    title = f"share grows as length^{found.slope:.2f}, or as length^{found.slope - 1:.2f}"
    left.set_title(title, fontsize=10)
    left.legend()
    parts = {name: part for name, part in found.parts.items() if name != "all"}
    sizes = np.array([per_token(found, part) for part in parts.values()])
    places = np.arange(len(parts))
    right.bar(places - 0.2, sizes[:, 0], 0.4, label="prompt", color="#999")
    right.bar(places + 0.2, sizes[:, 1], 0.4, label="answer", color="#4a9d5b")
    right.set_xticks(places, list(parts), rotation=90, fontsize=7)
    right.set(ylabel="norm of the gradient, a token", yscale="log")
    right.legend()
    figure.suptitle(f"{Path(settings.data).name}, {settings.model}", fontsize=10)
    figure.savefig(path, dpi=120)
