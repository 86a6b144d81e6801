"""Loading: the records of a data set, its format, and what was left out.

The fields of the first entry decide the format (data/formats), and all entries must have it.
Nothing is left out in silence: the notes name the fields that the format does not have, the files
of a folder that hold other things, and the entries that are left out since they cannot be used.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from minigpt2.data.files import Entry, files_of, read_entries
from minigpt2.data.formats import (
    ALL_FORMATS,
    FORMATS,
    Format,
    fields_of,
    find_format,
    has_fields,
    wrong_format,
)
from minigpt2.data.records import Record
from minigpt2.errors import UserError
from minigpt2.reading import json_kind, quoted
from minigpt2.wording import plural, shorten

NAMED = 5  # names that a sentence lists
FIELDS = {field for data_format in FORMATS for field in data_format.fields}
OPTIONAL = {field for data_format in FORMATS for field in data_format.optional}


class DataSet(NamedTuple):
    """The records of a data set, the format they came in, and sentences about what was left out."""

    records: list[Record]
    format: Format
    notes: list[str]
    numbers: Sequence[int]  # of the records' entries, counted from 0 over all files


class Fault(NamedTuple):
    """An entry that cannot be used: its place, and the sentence of its error."""

    where: str
    text: str


def load_data(
    path: Path,
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    *,
    prompts: bool = False,
) -> DataSet:
    """Read a data set; `columns` maps a field of a format to the field that the data has for it.

    With `prompts`, its entries may also be prompts alone, whose records have no output.  With
    `skip_bad`, entries that cannot be used are left out.  Raises UserError if a file cannot be
    used, an entry, or with `skip_bad` all entries.
    """
    columns = columns or {}
    check_columns(columns)
    files, others = files_of(Path(path))
    entries = [entry for file in files for entry in read_entries(file)]
    records, numbers, used, faults = [], [], [], []
    first = data_format = None
    for number, entry in enumerate(entries):
        try:
            renamed = rename_fields(entry, columns)
            if first is None or data_format is None:
                first, data_format = renamed, find_format(renamed, prompts=prompts)
            if not has_fields(renamed, data_format):
                raise wrong_format(renamed, first, data_format)
            records.append(data_format.to_record(renamed))
            numbers.append(number)
            used.append(renamed)
        except UserError as error:
            faults.append(Fault(entry.where, str(error)))
    if data_format is None or not records or (faults and not skip_bad):
        raise UserError(describe_faults(faults, len(entries)))
    for field, column in columns.items():
        if not any(isinstance(e.value, dict) and column in e.value for e in entries):
            raise UserError(
                f"no entry of {path} has a field {quoted(column)}, which columns names for "
                f"'{field}'"
            )
    notes = []
    if faults:
        notes.append(
            f"{path}: left out {len(faults):,} of {plural(len(entries), 'entry')}; {faults[0].text}"
        )
    if others:
        notes.append(f"{path}: passed over {listed(others)}")
    if names := unused_fields(used, data_format):
        noun = "field" if len(names) == 1 else "fields"
        notes.append(f"{path}: passed over the {noun} {listed(names)}")
    return DataSet(records, data_format, notes, numbers)


def check_columns(columns: Mapping[str, str]) -> None:
    """Raise UserError if columns name a field that no format has."""
    for field in columns:
        if field not in FIELDS | OPTIONAL:
            near = get_close_matches(field, sorted(FIELDS | OPTIONAL), n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; known are {ALL_FORMATS}"
            raise UserError(f"columns names a field {quoted(field)}, which no format has{hint}")


def rename_fields(entry: Entry, columns: Mapping[str, str]) -> Entry:
    """Return an entry with its fields under the formats' names.

    Raises UserError if it has a fault, is no object, or lacks a column of a field that no format
    allows to be absent.
    """
    if entry.fault:
        raise UserError(entry.fault)
    if not isinstance(entry.value, dict):
        raise UserError(
            f"{entry.where} is {json_kind(entry.value)}, not an object; "
            f"expected one of {ALL_FORMATS}"
        )
    for field, column in columns.items():
        if column not in entry.value and field not in OPTIONAL:
            raise UserError(
                f"{entry.where} has no field {quoted(column)}, which columns names for '{field}'; "
                f"it has {fields_of(entry)}"
            )
    renamed = {new: entry.value[old] for new, old in columns.items() if old in entry.value}
    rest = {k: v for k, v in entry.value.items() if k not in columns.values()}
    return entry._replace(value={**rest, **renamed})


def describe_faults(faults: Sequence[Fault], total: int) -> str:
    """Return the sentence of the first fault; how many there are, and where the next ones are."""
    if len(faults) == total:
        rest = f"; none of the {plural(total, 'entry')} can be used" if total > 1 else ""
        return faults[0].text + rest
    file = faults[0].where.partition(" of ")[2]
    places = [fault.where.removesuffix(f" of {file}") for fault in faults[1:]]
    following = f" (the next: {listed(places)})" if places else ""
    return (
        f"{faults[0].text}; {len(faults):,} of {plural(total, 'entry')} cannot be used{following}: "
        "--skip-bad leaves them out"
    )


def unused_fields(entries: Iterable[Entry], data_format: Format) -> list[str]:
    """Return the names of all fields that a format does not have, in entries and in messages."""
    known = {*data_format.fields, *data_format.optional}
    names: dict[str, None] = {}
    for entry in entries:
        for field, value in entry.value.items():
            if field not in known:
                names[field] = None
            elif data_format.turn and isinstance(value, list):
                turns = (name for turn in value for name in turn if name not in data_format.turn)
                names |= {f"{field}.{name}": None for name in turns}
    return list(names)


def listed(names: Sequence[str], most: int = NAMED) -> str:
    """Return names in a row, the first of them if there are many.

    >>> listed(["a", "b"]), listed(list("abcdefgh"))
    ('a, b', 'a, b, c, d, e and 3 more')
    """
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(shorten(name, width=60) for name in names[:most]) + rest
