"""The columns of a table: CSV, TSV or Parquet, with a line of column names."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from nas.errors import DataError, listed, plain, quoted, unknown


def columns_of(table: Path) -> dict[str, list[str]]:
    """The columns of a table as texts."""
    try:
        if table.suffix.lower() == ".parquet":
            return _parquet_columns(table)
        # Bytes that are no UTF-8 become the characters by which Python names such files.
        with table.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            header = file.readline(2**20)
            found = max(",;\t", key=header.count) if table.suffix.lower() == ".csv" else "\t"
            file.seek(0)
            rows = csv.reader(file, delimiter=found)
            names = [name.strip() for name in next(rows, [])]
            _refuse_equal(table, names)
            columns: dict[str, list[str]] = {name: [] for name in names}
            for row in filter(None, rows):
                if any(map(str.strip, row[len(names) :])):
                    raise DataError(
                        f"{table}: line {rows.line_num} has {len(row)} cells, and the first line names "
                        f"{len(names)} columns: put cells that contain {quoted(found)} in quotes"
                    )
                for name, cell in zip_longest(names, row[: len(names)], fillvalue=""):
                    columns[name].append(cell.strip())
            columns.pop("", None)  # the index that pandas writes
            return columns
    except OSError as error:
        raise DataError(f"{table} cannot be read: {error.strerror or error}") from None
    except csv.Error as error:
        raise DataError(f"{table} is no table: {plain(str(error))}") from None


def _refuse_equal(table: Path, names: Sequence[str]) -> None:
    """Refuse two columns of one name; several without a name are not used."""
    equal = [name for name, count in Counter(names).items() if name and count > 1]
    if equal:
        raise DataError(f"{table} has several columns that are called {quoted(equal[0])}: rename or remove them")


def _parquet_columns(table: Path) -> dict[str, list[str]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise DataError(f"{table}: Parquet files need a package: `pip install pyarrow`") from None
    try:
        content = parquet.read_table(table)
        _refuse_equal(table, content.column_names)
        values = content.to_pydict()
    except ArrowException as error:
        raise DataError(f"{table} is no Parquet file: {' '.join(plain(str(error)).split())}") from None
    return {name: ["" if v is None else str(v) for v in column] for name, column in values.items() if name}


def column_of(
    table: Path,
    columns: dict[str, list[str]],
    option: str,
    given: str,
    known: Sequence[str],
    *,
    needed: bool = True,
) -> str:
    """The name of a column: the given one, or the first with a known name; "" if there is none."""
    if given:
        if given not in columns:
            raise DataError(f"{table}: {unknown('column', given, columns)}")
        return given
    names = {name.casefold().replace(" ", "_"): name for name in reversed(columns)}
    found = next((names[name] for name in known if name in names), "")
    if needed and not found:
        raise DataError(
            f"{table} has no column that is called {', '.join(known[:3])} or so (its columns: {listed(columns)}): "
            f"name the column of {option} with --set dataset.{option}=NAME"
        )
    return found
