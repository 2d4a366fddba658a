"""What a site's treatment costs on one kind of machine: coefficients, measured, never guessed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import ClassVar, Literal

from segquant_trt.errors import SegQuantError
from segquant_trt.records.codec import read_record
from segquant_trt.records.files import digest_of
from segquant_trt.records.hardware import hardware, hardware_name
from segquant_trt.records.plan import DISTRIBUTIONS, Target
from segquant_trt.records.user_cache import default_cache

_TABLES = Path(__file__).parents[1] / "plan" / "tables"
LOCAL = Path("local")  # stands for the table that was measured on this machine

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

    `median_error` is the median relative error of the fit over the measured cases; None of prices
    that nobody measured: estimates from published rates, as `hardware` says.
    """

    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int = 1
    target: Target
    hardware: str
    threads: int
    versions: dict[str, str]
    batch: int
    median_error: float | None
    lines: tuple[CostLine, ...]


def table_path(target: Target, given: Path | None) -> Path:
    """The file that costs are read from.

    Args:
        target: of the plan.
        given: a file; `LOCAL` for this machine's own table; None for the one that ships.

    Raises:
        SegQuantError: this machine has no table of its own.
    """
    if given is None:
        return _TABLES / f"{target}.yaml"
    return _own_table(target) if given == LOCAL else given


def local_table_path(target: Target) -> Path:
    """Where this machine's own table is kept: by processor, cores and version of the runtime."""
    name, cores = hardware_name(), hardware()["cores"]
    words = re.sub(r"[^a-z0-9]+", "-", hardware()["cpu"].lower()).strip("-")
    try:
        version = metadata.version(DISTRIBUTIONS[target])
    except metadata.PackageNotFoundError:
        version = "absent"
    machine = f"{words}-{cores}-cores-{digest_of(name)[:8]}"
    return default_cache() / "costs" / machine / f"{target}-{version}.yaml"


def table_advice(target: Target) -> str | None:
    """What there is to know for who plans by the table that ships; None where it is of here."""
    if local_table_path(target).exists():
        return (
            f"the prices of {target} are those that ship, although this machine has a table of "
            "its own: --costs local plans by it"
        )
    table = cost_table(target, None)
    cores = int(hardware()["cores"])
    if table.median_error is None:
        return f"the prices of {target} are estimates: {table.hardware}; nobody has timed them"
    if (table.hardware, table.threads) == (hardware_name(), cores):
        return None
    return (
        f"the prices of {target} were measured on {table.hardware} with {table.threads} threads, "
        f"and this is {hardware_name()} with {cores} cores: 'segquant-trt costs --target {target}' "
        "measures here, and --costs local plans by that"
    )


def _own_table(target: Target) -> Path:
    path = local_table_path(target)
    if path.exists():
        return path
    others = sorted(path.parent.glob(f"{target}-*.yaml"))
    known = f"; there is {others[-1]}, of another version" if others else ""
    raise SegQuantError(
        f"this machine has no cost table of its own for {target}: {path} does not exist{known}",
        hint=f"'segquant-trt costs --target {target}' measures one",
    )


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
