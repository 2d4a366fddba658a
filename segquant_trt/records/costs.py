"""What a site's treatment costs on one kind of machine: coefficients, measured, never guessed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from segquant_trt.errors import SegQuantError
from segquant_trt.records.codec import read_record
from segquant_trt.records.plan import Target

_TABLES = Path(__file__).parents[1] / "plan" / "tables"

CostTerm = Literal[
    "call",  # one product, whatever its size
    "float_mac",  # a multiplication and addition in float32
    "integer_mac",  # the same in int8
    "weight_only_mac",  # float activations with coded weights
    "code",  # coding one input element
    "divide",  # dividing one input element by its channel's divisor
    "row_factor",  # finding one input element's part in its row's factor, and dividing by it
    "step_factor",  # dividing one input element by its step's factor
    "row_scale",  # multiplying one output element by its row's factor
    "add",  # adding one output element of a further product
    "output",  # writing one output element
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLine:
    """`nanoseconds` per unit of `term` in sites of kind `op`."""

    op: Literal["linear", "convolution"]
    term: CostTerm
    nanoseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTable:
    """Measured with `threads` threads on `hardware`; `batch` samples are assumed in a call.

    `median_error` is the median relative error of the fit over the measured cases.
    """

    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int = 1
    target: Target
    hardware: str
    threads: int
    versions: dict[str, str]
    batch: int
    median_error: float
    lines: tuple[CostLine, ...]


def table_path(target: Target, given: Path | None) -> Path:
    """The file that costs are read from: `given`, or the table that ships for `target`."""
    return _TABLES / f"{target}.yaml" if given is None else given


def cost_table(target: Target, given: Path | None) -> CostTable:
    """The table in the file `given`, or the one that ships for `target`.

    Raises:
        SegQuantError: the file is missing, truncated or no cost table, or a price is impossible.
    """
    path = table_path(target, given)
    table = read_record(path, CostTable)
    flaw = _flaw(table)
    if flaw is not None:
        raise SegQuantError(
            f"{path}: {flaw}; prices are finite, not negative, and told once",
            hint="undo the edit of the table, or measure it again",
        )
    return table


def _flaw(table: CostTable) -> str | None:
    if table.batch < 1:
        return f"batch is {table.batch}"
    told: set[tuple[str, str]] = set()
    for line in table.lines:
        if not (math.isfinite(line.nanoseconds) and line.nanoseconds >= 0.0):
            return f"{line.term} of {line.op} costs {line.nanoseconds} nanoseconds"
        if (line.op, line.term) in told:
            return f"{line.term} of {line.op} is told twice"
        told.add((line.op, line.term))
    return None
