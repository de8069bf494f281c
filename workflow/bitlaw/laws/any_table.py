"""A table of one's own for a law: a CSV file, the columns wanted of it, and conditions on its rows."""

import math
import re

import pandas as pd

from bitlaw import InputError

COMPARISONS = {"<=": "le", ">=": "ge", "!=": "ne", "=": "eq", "<": "lt", ">": "gt"}  # sign → method of a Series


def read(path, columns, conditions=()):
    """The columns of the CSV file `path`, DataFrame of numbers, finite and positive, in those rows that meet all
    `conditions` (texts such as "experiment=first" or "N<=1e9").

    columns: {what names it, such as "--size": column}. Raises InputError, with the row counted from 1 after the header.
    """
    _look_at_the_start(path)
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from None
    named = list(columns.items())
    for i, (name, column) in enumerate(named):
        for other, same in named[:i]:
            if column == same:
                raise InputError(f"{path}: {other} and {name} are both {column!r}; a law needs different columns")
        _has(path, table, column)
    chosen = _those(path, table, conditions)[list(columns.values())]
    for column in chosen:
        if not pd.api.types.is_numeric_dtype(chosen[column]):
            raise InputError(f"{path}: column {column!r} holds {chosen[column].iloc[0]!r}; numbers are needed")
        for row, value in chosen[column].items():
            if not (math.isfinite(value) and value > 0):
                raise InputError(
                    f"{path}: row {row + 1}, column {column!r} holds {value}; a law needs finite, positive numbers: "
                    "drop that row or leave it out by --where"
                )
    return chosen


def _look_at_the_start(path):
    """Refuse by its first line what pandas would read as a CSV file of one odd column."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            first = file.readline()
    except OSError as error:
        raise InputError(f"{path}: cannot be read as CSV ({error.strerror})") from None
    if first.lstrip().startswith(("{", "[")):
        raise InputError(f"{path}: looks like JSON; needs CSV: a header, then a row a line, separated by commas")
    if "\t" in first and "," not in first:
        raise InputError(f"{path}: separated by tabs; needs commas")


def _has(path, table, column):
    if column not in table:
        raise InputError(f"{path}: no column {column!r}; it has {', '.join(table.columns)}")


def _those(path, table, conditions):
    """The rows that meet all conditions; InputError when there is none."""
    met = []
    for condition in conditions:
        parts = re.fullmatch(r"(.+?)(<=|>=|!=|=|<|>)(.*)", condition)
        if not parts:
            raise InputError(f"{path}: --where {condition}: needs COLUMN=VALUE, or another of {', '.join(COMPARISONS)}")
        column, sign, value = parts.groups()
        _has(path, table, column)
        known = table[column]
        if pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known):
            try:
                value = float(value)
            except ValueError:
                raise InputError(f"{path}: --where {condition}: column {column!r} holds numbers") from None
        elif sign in ("=", "!="):
            known = known.astype(str)
        else:
            raise InputError(f"{path}: --where {condition}: column {column!r} holds no numbers; use = or !=")
        met.append(condition)
        kept = table[getattr(known, COMPARISONS[sign])(value)]
        if kept.empty:
            there = ", ".join(
                f"{value:g}" if isinstance(value, float) else str(value) for value in _some(table[column])
            )
            raise InputError(f"{path}: no row has {' and '.join(met)}; column {column!r} holds {there}")
        table = kept
    return table


def _some(values, most=8):
    """Distinct values in order, at most so many."""
    distinct = sorted(values.dropna().unique())
    return distinct if len(distinct) <= most else [*distinct[:most], "…"]
