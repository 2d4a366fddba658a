from __future__ import annotations

from dataclasses import replace

import pytest

from segquant_trt.report.sites import site_rows
from tests.report.runs import zoo_run


def test_rows_join_plan_facts_and_measured_error() -> None:
    run = zoo_run(12)
    rows = site_rows(run.facts, run.plan, run.quality)
    assert [row.site for row in rows] == [site.site for site in run.plan.sites]
    assert sum(row.macs_share for row in rows) == pytest.approx(1.0)
    assert rows[0].role == "embedder"
    assert (rows[0].scheme, rows[0].codes, rows[0].words) == ("float", (), ("float",))
    assert rows[0].error_db is None
    assert (rows[5].scheme, rows[5].words) == ("shifted", ("shifted", "int8"))
    assert rows[5].codes == ("scale 0.0213, zero shift -97",)
    assert rows[2].error_db == next(
        error.sqnr_db for error in run.quality.site_errors if error.site == rows[2].site
    )
    assert rows[2].shape == "MatMul 192 → 768"


def test_site_without_a_fact_or_work() -> None:
    run = zoo_run(3)
    plan = replace(
        run.plan, sites=tuple(replace(site, macs_per_sample=0) for site in run.plan.sites)
    )
    rows = site_rows(replace(run.facts, sites=()), plan, run.quality)
    assert {row.role for row in rows} == {"unknown"}
    assert {row.macs_share for row in rows} == {0.0}


def test_convolutions_show_kernel_and_groups() -> None:
    run = zoo_run(1)
    conv = replace(run.facts.sites[0], op="Conv", kernel=(3, 3), groups=4)
    (row,) = site_rows(replace(run.facts, sites=(conv,)), run.plan, run.quality)
    assert row.shape == "Conv 192 → 768, 3×3, 4 groups"
