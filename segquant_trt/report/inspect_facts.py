"""What `analyze` found in a graph, as tables: of facts.yaml, and of any ONNX file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from segquant_trt.records import GraphFacts
from segquant_trt.report.description import Cell, Description, Property, Table, columns

_SHOWN = 3


def describe_facts(facts: GraphFacts, name: str) -> Description:
    """The facts read from the file called `name`."""
    return Description(
        kind="graph facts",
        properties=(
            Property(name="file", value=name),
            *facts_properties(facts),
            Property(name="graph sha256", value=facts.onnx_sha256),
        ),
        tables=facts_tables(facts),
        notes=facts.notes,
    )


def facts_properties(facts: GraphFacts) -> tuple[Property, ...]:
    """Counts, and the inputs that were taken for timestep and prompts."""
    return (
        Property(name="sites", value=len(facts.sites)),
        Property(name="segmented inputs", value=_sides(facts, "input")),
        Property(name="divided outputs", value=_sides(facts, "output")),
        Property(name="polar inputs", value=len({entry.site for entry in facts.polarity})),
        Property(name="timestep only", value=len(facts.timestep_only)),
        Property(name="prompt constant", value=len(facts.prompt_constant)),
        Property(name="prompt and timestep", value=len(facts.prompt_and_timestep)),
        Property(name="near misses", value=len(facts.rejections)),
        Property(name="timestep", value=facts.timestep),
        Property(name="prompt inputs", value=", ".join(facts.prompt_inputs) or None),
    )


def facts_tables(facts: GraphFacts) -> tuple[Table, ...]:
    """Roles, sites, segments, polarity, timestep-only sites, near misses; no empty table."""
    modules = {site.name: site.module for site in facts.sites}
    tables = (
        _counts("roles", "role", (site.role for site in facts.sites)),
        Table(
            title="sites",
            columns=columns("site", "module", "op", "role", ("in", "count"), ("out", "count")),
            rows=tuple(
                (s.name, s.module, s.op, s.role, s.in_features, s.out_features)
                for s in facts.sites
            ),
        ),
        _texts(
            "segments",
            ("site", "module", "side", "pattern", "sizes", "tensors"),
            (
                (s.site, s.module, s.side, f"{s.pattern}{' (trivial)' if s.trivial else ''}",
                 _runs(s.sizes), _first(s.tensors))
                for s in facts.segments
            ),
        ),
        _texts(
            "polarity",
            ("site", "module", "segment", "activation"),
            (
                (p.site, modules.get(p.site), "all" if p.segment is None else str(p.segment),
                 p.activation)
                for p in facts.polarity
            ),
        ),
        _texts(
            "timestep only",
            ("site", "module", "leaves through"),
            ((t.site, modules.get(t.site), _first(t.values)) for t in facts.timestep_only),
        ),
        _texts(
            "near misses",
            ("site", "pattern", "why not", "nodes"),
            ((r.site, r.pattern, r.reason, _first(r.nodes)) for r in facts.rejections),
        ),
    )  # fmt: skip
    return tuple(table for table in tables if table.rows)


def _sides(facts: GraphFacts, side: str) -> int:
    return len({segments.site for segments in facts.segments if segments.side == side})


def _runs(values: Sequence[object]) -> str:
    """The values, repetitions as a count: `48, 192` or `64 x12`."""
    groups = ((value, len(list(group))) for value, group in groupby(values))
    return ", ".join(f"{value} x{count}" if count > 1 else str(value) for value, count in groups)


def _first(names: Sequence[str]) -> str:
    """The first names; `analyze --json` has all of them."""
    distinct = tuple(dict.fromkeys(names))
    rest = len(distinct) - _SHOWN
    return ", ".join(distinct[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _texts(title: str, names: Sequence[str], rows: Iterable[tuple[Cell, ...]]) -> Table:
    return Table(title=title, columns=columns(*names), rows=tuple(rows))


def _counts(title: str, name: str, values: Iterable[str]) -> Table:
    return Table(
        title=title,
        columns=columns(name, ("sites", "count")),
        rows=tuple(Counter(values).most_common()),
    )
