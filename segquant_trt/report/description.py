"""What `inspect` and `doctor` answer: properties and tables, as aligned text or plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from segquant_trt.report.numerals import NOTHING, percent, significant, size

Cell = str | int | float | bool | None
Unit = Literal["text", "count", "bytes", "number", "share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """One named value; `unit` says how text shows it."""

    name: str
    value: Cell
    unit: Unit = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A table's column."""

    name: str
    unit: Unit = "text"


def columns(*names: str | tuple[str, Unit]) -> tuple[Column, ...]:
    """Columns by name, of text unless a unit is given with it."""
    return tuple(
        Column(name=name) if isinstance(name, str) else Column(name=name[0], unit=name[1])
        for name in names
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells under columns."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The answer. `kind` is what it describes: "plan", "ONNX graph", "bundle", ..."""

    kind: str
    properties: tuple[Property, ...]
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: raw numbers, table rows as dicts by column name."""
        return {
            "kind": self.kind,
            "properties": {item.name: item.value for item in self.properties},
            "tables": {
                table.title: [
                    {column.name: cell for column, cell in zip(table.columns, row, strict=True)}
                    for row in table.rows
                ]
                for table in self.tables
            },
            "notes": list(self.notes),
        }

    def text(self, *, rows: int | None = 40) -> str:
        """For a terminal; tables are cut after `rows` rows (None: never)."""
        width = max((len(item.name) for item in self.properties), default=0)
        lines = [self.kind]
        for item in self.properties:
            lines.append(f"  {item.name:<{width}}  {_shown(item.value, item.unit)}")
        for table in self.tables:
            lines += ["", table.title, *_table_lines(table, rows)]
        if self.notes:
            lines += ["", "notes", *(f"  {_printable(note)}" for note in self.notes)]
        return "\n".join(lines)


def _table_lines(table: Table, limit: int | None) -> list[str]:
    shown = table.rows if limit is None else table.rows[:limit]
    cells = [
        [_shown(cell, column.unit) for cell, column in zip(row, table.columns, strict=True)]
        for row in shown
    ]
    header = [column.name for column in table.columns]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    lines = [_aligned(row, widths, table.columns) for row in (header, *cells)]
    if len(shown) < len(table.rows):
        lines.append(f"  ... {len(table.rows) - len(shown)} more rows")
    return lines


def _aligned(cells: Sequence[str], widths: Sequence[int], columns: Sequence[Column]) -> str:
    parts = [
        cell.ljust(width) if column.unit == "text" else cell.rjust(width)
        for cell, width, column in zip(cells, widths, columns, strict=True)
    ]
    return "  " + "  ".join(parts).rstrip()


def _shown(value: Cell, unit: Unit) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return _printable(value)
    match unit:
        case "bytes":
            return size(value)
        case "share":
            return percent(value)
        case "number":
            return significant(value)
        case "text" | "count":
            return str(value)


def _printable(text: str) -> str:
    # A name in a file must not move the cursor or recolour the terminal.
    return "".join(character if character.isprintable() else "?" for character in text)
