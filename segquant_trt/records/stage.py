"""A stage of the pipeline, and the rule by which it is skipped, run again or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segquant_trt
from segquant_trt.errors import SegQuantError
from segquant_trt.records.codec import read_record, to_plain
from segquant_trt.records.facts import GraphFacts
from segquant_trt.records.files import sha256_file
from segquant_trt.records.model_spec import CheckpointLocation, ModelSpec
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.plan import QuantPlan
from segquant_trt.records.progress import Progress
from segquant_trt.records.run_folder import RunFolder, Stamp, stage_key


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileResult:
    """What a compilation or a stage answers. `summary` is JSON-serialisable."""

    run: Path
    summary: dict[str, Any]
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One stage at work in a run folder."""

    run: RunFolder
    options: CompileOptions
    progress: Progress

    def spec(self) -> ModelSpec:
        """The exported model."""
        return read_record(self.run / "model.yaml", ModelSpec)

    def location(self) -> CheckpointLocation:
        """Where the checkpoint is on this machine."""
        return read_record(self.run / "model.location.yaml", CheckpointLocation)

    def weights(self) -> Path:
        """The checkpoint's folder.

        Raises:
            SegQuantError: a file is gone, or is another one than was exported.
        """
        location = self.location()
        folder = Path(location.folder)
        for name, mtime_ns in location.mtime_ns.items():
            try:
                status = (folder / name).stat()
            except OSError as error:
                raise SegQuantError(
                    f"the checkpoint file {folder / name} is gone",
                    hint="put it back, or run 'segquant-trt export' with its new place",
                ) from error
            if (status.st_mtime_ns, status.st_ino) != (mtime_ns, location.inode[name]):
                raise SegQuantError(
                    f"the checkpoint file {folder / name} has changed since it was exported",
                    hint="run 'segquant-trt export' or 'compile' again",
                )
        return folder

    def facts(self) -> GraphFacts:
        """What analyze found."""
        return read_record(self.run / "facts.yaml", GraphFacts)

    def plan(self) -> QuantPlan:
        """The plan, as made or as edited."""
        return read_record(self.run / "plan.yaml", QuantPlan)

    def update(self, label: str) -> Callable[[int, int], None]:
        """A progress callback for one label."""
        return lambda done, total: self.progress.update(label, done, total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A row of `STAGES`.

    `options` are the fields of CompileOptions that change the outcome; `identity` is whatever
    else does (the checkpoint, the content of files that `further` options name, or that change
    nothing but speed); an `editable` output may be changed by hand, and is then used as it is.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: tuple[str, ...]
    body: Callable[[Work], None]
    identity: Callable[[Work], Any] = lambda work: None
    editable: bool = False
    further: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Every option that the stage looks at."""
        return (*self.options, *self.further)


def settle(row: Stage, work: Work, *, forced: bool) -> bool:
    """Bring one stage up to date; True when it was so already.

    Raises:
        SegQuantError: an edited output has been overtaken by its inputs, or the body's own.
    """
    run = work.run
    inputs = run.digests(row.inputs)
    given = to_plain(work.options)
    chosen = {name: _plain(given[name]) for name in row.options}
    key = stage_key(row.name, segquant_trt.__version__, chosen, [inputs, row.identity(work)])
    stamp = run.stamp(row.name)
    outputs = run.digests(row.outputs)
    if stamp is not None and not forced:
        unchanged = stamp.key == key
        intact = stamp.outputs == outputs
        if unchanged and intact:
            return True
        if row.editable and outputs and not intact:
            _accept_edit(row, run, unchanged=unchanged, stamp=stamp, inputs=inputs)
            work.progress.note(f"{run / row.outputs[0]} was edited; it is used as it is")
            return True
    work.progress.note(f"{row.name} ...")
    # Without its stamp a stage that is killed half-way starts anew, whatever it has written.
    run.drop_stamp(row.name)
    row.body(work)
    run.write_stamp(row.name, Stamp(key=key, inputs=inputs, outputs=run.digests(row.outputs)))
    return False


def _accept_edit(
    row: Stage, run: RunFolder, *, unchanged: bool, stamp: Stamp, inputs: Mapping[str, str]
) -> None:
    if unchanged:
        return
    changed = [name for name, digest in inputs.items() if stamp.inputs.get(name) != digest]
    because = f"{run / changed[0]} has changed" if changed else "the options have changed"
    raise SegQuantError(
        f"{run / row.outputs[0]} was edited by hand, but {because} since it was made",
        hint=f"delete {run / row.outputs[0]} to plan anew, or use --force (the edit is lost)",
    )


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def content_of(path: Path | None) -> list[list[str]]:
    """Name and sha256 of the file, or of every file in the folder; empty for None."""
    if path is None:
        return []
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [[file.name, sha256_file(file)] for file in files]
