"""When a stage is skipped, run again, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.progress import Silent
from segquant_trt.records.run_folder import RunFolder
from segquant_trt.records.stage import Stage, Work, settle


class Bench:
    """A run folder with one stage that copies `in.txt` into `out/copy.txt`, and counts itself."""

    def __init__(self, path: Path, *, editable: bool = False) -> None:
        self.path = path
        self.ran = 0
        self.notes: list[str] = []
        self.options = CompileOptions(out=path, model="m")
        (path / "in.txt").write_text("one")
        self.row = Stage(
            name="copy",
            inputs=("in.txt",),
            outputs=("out",),
            options=("seed",),
            body=self.body,
            editable=editable,
        )

    def body(self, work: Work) -> None:
        self.ran += 1
        (work.run / "out").mkdir(exist_ok=True)
        (work.run / "out" / "copy.txt").write_bytes((work.run / "in.txt").read_bytes())

    def settle(self, *, forced: bool = False) -> bool:
        progress = Silent()
        work = Work(run=RunFolder(self.path), options=self.options, progress=progress)
        return settle(self.row, work, forced=forced)


def test_a_stage_runs_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert [bench.settle(), bench.settle(), bench.settle()] == [False, True, True]
    assert bench.ran == 1


def test_a_changed_input_option_or_output_runs_it_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.settle()
    (tmp_path / "in.txt").write_text("two")
    assert not bench.settle()
    bench.options = replace(bench.options, seed=7)
    assert not bench.settle()
    bench.options = replace(bench.options, keep_float=("x",))  # not this stage's option
    assert bench.settle()
    (tmp_path / "out" / "copy.txt").write_text("damaged")
    assert not bench.settle()
    assert (tmp_path / "out" / "copy.txt").read_text() == "two"
    (tmp_path / "out" / "copy.txt").unlink()
    assert not bench.settle()
    assert not bench.settle(forced=True)


def test_an_edit_is_used_until_its_inputs_change(tmp_path: Path) -> None:
    bench = Bench(tmp_path, editable=True)
    bench.settle()
    copy = tmp_path / "out" / "copy.txt"
    copy.write_text("edited by hand")
    assert bench.settle()
    assert copy.read_text() == "edited by hand"
    (tmp_path / "in.txt").write_text("two")
    with pytest.raises(SegQuantError) as refused:
        bench.settle()
    assert str(tmp_path / "in.txt") in refused.value.what
    assert "edited by hand" in refused.value.what
    assert not bench.settle(forced=True)
    assert copy.read_text() == "two"


def test_a_failing_body_leaves_no_stamp(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.settle()

    def fail(work: Work) -> None:
        raise SegQuantError("no", hint="none")

    good = bench.row
    bench.row = replace(good, body=fail)
    (tmp_path / "in.txt").write_text("two")
    with pytest.raises(SegQuantError):
        bench.settle()
    bench.row = good
    assert not bench.settle()


def test_an_editable_stage_killed_half_way_is_not_taken_for_edited(tmp_path: Path) -> None:
    bench = Bench(tmp_path, editable=True)
    bench.settle()
    good = bench.row

    def killed(work: Work) -> None:
        good.body(work)
        raise KeyboardInterrupt

    (tmp_path / "in.txt").write_text("two")
    bench.row = replace(good, body=killed)
    with pytest.raises(KeyboardInterrupt):
        bench.settle()
    bench.row = good
    (tmp_path / "in.txt").write_text("one")
    assert not bench.settle()
    assert (tmp_path / "out" / "copy.txt").read_text() == "one"


def test_what_killed_runs_left_is_swept(tmp_path: Path) -> None:
    leftover = tmp_path / "recordings" / ".shard.123.abcd.tmp"
    leftover.parent.mkdir()
    leftover.write_bytes(b"half")
    with RunFolder(tmp_path).locked():
        assert not leftover.exists()


def test_a_damaged_stamp_counts_as_none(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.settle()
    for name in ("copy.json", "digests.json"):
        (tmp_path / ".stages" / name).write_text('{"key": ')
    assert not bench.settle()


def test_two_processes_cannot_hold_one_folder(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path).locked(),
        pytest.raises(SegQuantError, match="another run"),
        RunFolder(tmp_path).locked(),
    ):
        pass
    with RunFolder(tmp_path).locked():
        pass


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(SegQuantError, match=str(path)), RunFolder(path).locked():
        pass


def test_a_missing_input_names_the_stage_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(SegQuantError) as refused:
        RunFolder(tmp_path).require(("a.txt",), stage="b", producers={"a.txt": "first"})
    assert "a.txt" in refused.value.what
    assert "segquant-trt first" in refused.value.hint


def test_a_failure_before_the_first_file_leaves_no_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(SegQuantError), run.locked():
        raise SegQuantError("no such model", hint="none")
    assert not run.path.exists()
    (tmp_path / "kept").mkdir()
    with pytest.raises(SegQuantError), RunFolder(tmp_path / "kept").locked():
        raise SegQuantError("no such model", hint="none")
    assert (tmp_path / "kept").is_dir()
