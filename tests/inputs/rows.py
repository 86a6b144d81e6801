"""Rows: all rows by kind."""

from tests.inputs import (
    adapters,
    alignment,
    configs,
    data,
    formats,
    legal,
    names,
    outputs,
    settings,
    sizes,
    streams,
    templates,
    values,
    vocabularies,
    weights,
)
from tests.inputs.row import Row

KINDS = (
    data,
    formats,
    settings,
    templates,
    configs,
    weights,
    adapters,
    vocabularies,
    values,
    names,
    streams,
    sizes,
    outputs,
    legal,
    alignment,
)


def rows_by_kind() -> dict[str, list[Row]]:
    """Return the rows of each kind."""
    return {module.__name__.rpartition(".")[2]: module.ROWS for module in KINDS}
