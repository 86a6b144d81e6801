"""Imbalance: where the gradient comes from, as tables and as a picture.

This is `minigpt2 imbalance`.  training/gradient_imbalance defines what it measures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

import numpy as np
from rich.table import Table

from minigpt2.commands.dataset import DataSettings, open_dataset, reader_of
from minigpt2.commands.setup import open_start
from minigpt2.errors import UserError, require_at_least, require_picture
from minigpt2.outputs import require_new_file, whole_file
from minigpt2.reports.imbalance_plot import draw_imbalance
from minigpt2.reports.progress import progress
from minigpt2.reports.screen import Screen, describe_cuts, new_table
from minigpt2.training.gradient_imbalance import Imbalance, measure, norms_per_token
from minigpt2.wording import plural

GROUPS = 4  # of answers by length
MOST = 1_000_000  # the largest weight of a prompt token


@dataclass(frozen=True, kw_only=True)
class ImbalanceSettings(DataSettings):
    """Measure where the gradient comes from: prompts or answers, short or long ones.

    Examples:
        minigpt2 imbalance questions.json
        minigpt2 imbalance questions.json --model gpt2 --count 256 --figure imbalance.png

    Args:
        model: model whose gradient is measured: a name, or the folder of a model or of a run
        from_scratch: use random weights of the model's size
        count: number of examples to measure, drawn at random
        weights: prompt weights λ, for each of which the gradient is shown
        seed: seed of the draw, and of random weights
        figure: also draw the measurement into this PNG, SVG or PDF file
    """

    from_scratch: bool = False
    count: int = 64
    weights: list[float] = field(default_factory=lambda: [0.0, 0.01, 0.1, 0.5, 1.0])
    seed: int = 0
    figure: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "count")
        require_at_least(0, self, "seed")
        require_picture(self, "figure")
        if not all(0 <= weight <= MOST for weight in self.weights):
            raise UserError(f"each of weights must be a number from 0 to {MOST:,}")


def imbalance(settings: ImbalanceSettings) -> Imbalance:
    """Measure, print the tables and draw the picture; return the measurement."""
    require_new_file(settings.figure, "--figure")
    console = Screen()
    rng = np.random.default_rng([settings.seed, 0])
    with progress(f"opening {settings.model} and {settings.data}"):
        model = open_start(settings.model, settings.from_scratch, rng)
        dataset = open_dataset(settings, reader_of(model))
        chosen = rng.permutation(len(dataset.records))[: settings.count]
        examples, cuts = dataset.examples([dataset.records[i] for i in chosen])
    with progress("gradients, example by example", len(examples)) as advance:
        measured = measure(model.parameters, examples, advance)
    console.print(
        f"{settings.model} on {plural(len(examples), 'example')} of {settings.data}: "
        f"{plural(measured.prompt_tokens, 'prompt target')}, "
        f"{plural(measured.answer_tokens, 'answer target')}"
    )
    if cuts.is_any:
        console.print(f"over the context of {dataset.context:,}: {describe_cuts(cuts)}")
    console.print(weight_table(measured, settings.weights))
    console.print(part_table(measured))
    console.print(group_table(measured))
    console.print(slope_lines(measured))
    if settings.figure:
        with whole_file(settings.figure) as file:
            draw_imbalance(file, measured, f"{Path(settings.data).name}, {settings.model}")
        console.print(f"drawn in {settings.figure}")
    return measured


def slope_lines(measured: Imbalance) -> str:
    """Return one or two lines on the growth of an answer's gradient with its length."""
    slope = measured.slope
    if not isfinite(slope):
        same = "there is one answer only" if len(measured.lengths) == 1 else "all have one length"
        return f"how the gradient grows with the answer's length cannot be seen: {same}"
    return (
        f"with --loss token, an answer's share of the gradient grows as length^{slope:.2f} "
        f"(0.5 to 1 is normal)\nwith --loss example, as length^{slope - 1:.2f}"
    )


def weight_table(measured: Imbalance, weights: Sequence[float]) -> Table:
    """Return the norm, the prompts' share and the direction of the gradient by prompt weight."""
    names = ("norm of G(λ)", "prompts' share of the norms", "cosine with λ = 0")
    table = new_table("\nThe gradient G(λ), by the weight λ of a prompt token", "λ", *names)
    for weight in weights:
        whole = measured.parts["all"]
        name = {0.0: "0 masked", 1.0: "1 unmasked"}.get(weight, f"{weight:g}")
        size = whole.norm(weight) / (weight * measured.prompt_tokens + measured.answer_tokens)
        cells = f"{size:.4g}", f"{whole.prompt_share(weight):.1%}", f"{whole.alignment(weight):.3f}"
        table.add_row(name, *cells)
    return table


def part_table(measured: Imbalance) -> Table:
    """Return the gradients from prompts and from answers, by part of the model."""
    names = ("prompts, per token", "answers, per token", "cosine")
    table = new_table("\nNorms of the gradients from prompts and from answers", "", *names)
    for name, part in measured.parts.items():
        table.add_row(
            name, *(f"{x:.4g}" for x in norms_per_token(measured, part)), f"{part.cosine:+.3f}"
        )
    return table


def group_table(measured: Imbalance) -> Table:
    """Return the shares of short and of long answers in the gradient."""
    names = ("examples", "of the tokens", "--loss token", "--loss example")
    table = new_table("\nShares in the gradient, answers by length", "answer tokens", *names)
    order = np.argsort(measured.lengths, kind="stable")
    for group in np.array_split(order, min(GROUPS, len(order))):
        lengths = measured.lengths[group]
        shares = (lengths.sum() / measured.answer_tokens, measured.shares[group].sum())
        cells = (*shares, measured.shares_alike[group].sum())
        least, most = lengths.min(), lengths.max()
        label = f"{least}" if least == most else f"{least} to {most}"
        table.add_row(label, str(len(group)), *(f"{share:.1%}" for share in cells))
    return table
