from __future__ import annotations

import json

from segquant_trt.report.description import Column, Description, Property, Table

DESCRIPTION = Description(
    kind="plan",
    properties=(
        Property(name="file", value="plan.yaml"),
        Property(name="weights", value=5_912_040, unit="bytes"),
        Property(name="absent", value=None),
        Property(name="intact", value=False),
    ),
    tables=(
        Table(
            title="sites",
            columns=(
                Column(name="site"),
                Column(name="count", unit="count"),
                Column(name="share", unit="share"),
            ),
            rows=(("a", 5, 0.25), ("long name", 12345, None), ("c", 1, 1.0)),
        ),
    ),
    notes=("first", "\x1b[31mred"),
)


def test_text_is_aligned() -> None:
    assert DESCRIPTION.text().splitlines() == [
        "plan",
        "  file     plan.yaml",
        "  weights  5.91 MB",
        "  absent   –",
        "  intact   no",
        "",
        "sites",
        "  site       count    share",
        "  a              5   25.0 %",
        "  long name  12345        –",
        "  c              1  100.0 %",
        "",
        "notes",
        "  first",
        "  ?[31mred",
    ]


def test_long_tables_are_cut_in_text_only() -> None:
    lines = DESCRIPTION.text(rows=1).splitlines()
    assert "  ... 2 more rows" in lines
    assert not any("long name" in line for line in lines)
    assert len(DESCRIPTION.as_dict()["tables"]["sites"]) == 3


def test_dict_keeps_raw_values() -> None:
    plain = DESCRIPTION.as_dict()
    assert plain == json.loads(json.dumps(plain))
    assert plain["properties"]["weights"] == 5_912_040
    assert plain["tables"]["sites"][1] == {"site": "long name", "count": 12345, "share": None}
