"""A table of one's own for a law: a CSV or parquet file, the columns wanted of it, and conditions on its rows."""

import io
import math
import re
import sys

import pandas as pd

from bitlaw import InputError

COMPARISONS = {"<=": "le", ">=": "ge", "!=": "ne", "=": "eq", "<": "lt", ">": "gt"}  # sign → method of a Series
STANDARD = "-"  # standard input


def read(path, columns, conditions=(), by=None):
    """The columns of the table `path`, DataFrame of numbers, finite and positive, in those rows that meet all
    `conditions` (texts such as "experiment=first" or "N<=1e9").

    path: a CSV file, a parquet file by its suffix, or "-", CSV on standard input. columns: {what names it, such as
    "--size": column}. by: a column that groups the rows, taken as text. Raises InputError, with the row counted from 1
    after the header.
    """
    table = _table(path)
    named = list(columns.items()) + ([("--by", by)] if by else [])
    for i, (name, column) in enumerate(named):
        for other, same in named[:i]:
            if column == same:
                raise InputError(f"{path}: {other} and {name} are both {column!r}; a law needs different columns")
        _has(path, table, column)
    chosen = _those(path, table, conditions)[[column for _, column in named]]
    for column in columns.values():
        if not pd.api.types.is_numeric_dtype(chosen[column]):
            raise InputError(f"{path}: column {column!r} holds {chosen[column].iloc[0]!r}; numbers are needed")
        for row, value in chosen[column].items():
            if not (math.isfinite(value) and value > 0):
                raise InputError(
                    f"{path}: row {row + 1}, column {column!r} holds {value}; a law needs finite, positive numbers: "
                    "drop that row or leave it out by --where"
                )
    if by:
        if (missing := chosen[by].isna()).any():
            row = int(missing.idxmax()) + 1
            raise InputError(f"{path}: row {row} has no {by!r}; fill it in or leave the row out by --where")
        chosen = chosen.assign(**{by: chosen[by].astype(str)})
    return chosen


def _table(path):
    """The whole table; see `read`."""
    try:
        if str(path).endswith(".parquet"):
            return pd.read_parquet(path).reset_index(drop=True)
        if str(path) == STANDARD:
            text = sys.stdin.read()
        else:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as parquet ({error})") from None
    _look_at_the_start(path, text.partition("\n")[0])
    try:
        return pd.read_csv(io.StringIO(text))
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from None


def _look_at_the_start(path, first):
    """Refuse by its first line what pandas would read as a CSV file of one odd column."""
    if first.startswith("PAR1"):
        raise InputError(f"{path}: is a parquet file; name it with .parquet")
    if first.lstrip().startswith(("{", "[")):
        raise InputError(f"{path}: looks like JSON; needs CSV: a header, then a row a line, separated by commas")
    if "\t" in first and "," not in first:
        raise InputError(f"{path}: separated by tabs; needs commas")


def _has(path, table, column):
    if column not in table:
        raise InputError(f"{path}: no column {column!r}; it has {', '.join(map(str, table.columns))}")


def _those(path, table, conditions):
    """The rows that meet all conditions; InputError when there is none."""
    if table.empty:
        raise InputError(f"{path}: holds no row")
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
