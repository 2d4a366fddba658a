"""What a run folder answers while its records are of different ages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segquant_trt.records.codec import to_plain, write_record
from segquant_trt.records.files import atomic_write_json
from segquant_trt.report.summary import summarize
from tests.report.runs import zoo_run


def test_a_plan_that_the_bundle_is_not_of_is_told(tmp_path: Path) -> None:
    run = zoo_run(4)
    atomic_write_json(tmp_path / "bundle" / "manifest.json", to_plain(run.manifest))
    write_record(tmp_path / "bundle" / "plan.yaml", run.plan)
    assert "outdated" not in summarize(tmp_path)
    write_record(tmp_path / "plan.yaml", run.plan)
    assert "outdated" not in summarize(tmp_path)
    (tmp_path / "plan.yaml").write_bytes((tmp_path / "plan.yaml").read_bytes() + b"# a remark\n")
    assert "outdated" not in summarize(tmp_path)
    write_record(tmp_path / "plan.yaml", replace(run.plan, sites=run.plan.sites[:-1]))
    assert "an earlier plan" in summarize(tmp_path)["outdated"]
