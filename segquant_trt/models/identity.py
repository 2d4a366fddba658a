"""What decides, beside options and files of the run folder, whether a stage must run again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.safetensors_header import read_header
from segquant_trt.models.source import ModelSource, resolve
from segquant_trt.records import CheckpointLocation
from segquant_trt.records.costs import table_path
from segquant_trt.records.files import atomic_write_json, digest_of, sha256_file
from segquant_trt.records.stage import Work, content_of

_LEDGER = ".stages/checkpoint.json"
_RUNTIMES = ("torch", "diffusers", "onnxruntime", "openvino")


def of_checkpoint(work: Work) -> Any:
    """What an export depends on; with `--verify-digests` every byte is read and compared."""
    source = source_of(work)
    if work.options.verify_digests:
        verify_content(source.checkpoint, work.run / _LEDGER)
    return [checkpoint_identity(source), runtime_versions()]


def of_runtimes(_: Work) -> Any:
    """What a proof or a timing depends on."""
    return runtime_versions()


def of_calibration(work: Work) -> Any:
    """Recorded inputs, prompts, and the pipeline around the denoiser."""
    options = work.options
    return [content_of(options.inputs), content_of(options.prompts), surroundings(work.location())]


def of_verification(work: Work) -> Any:
    """As of calibration, and held-out inputs."""
    return [of_calibration(work), content_of(work.options.verify_inputs), runtime_versions()]


def of_freezing(work: Work) -> Any:
    """The scheduler and the sizes that it may shift by, where steps are frozen."""
    options = work.options
    if options.freeze_schedule is None:
        return None
    chosen = [options.scheduler, options.height, options.width, options.dtype]
    return [chosen, surroundings(work.location()), runtime_versions()]


def of_planning(work: Work) -> Any:
    """The user's rules, and the cost table, by content."""
    options = work.options
    costs = table_path(options.target, options.costs)
    return [content_of(options.rules), content_of(costs)]


def source_of(work: Work) -> ModelSource:
    """The model that the options name.

    Raises:
        SegQuantError: none is named, or it cannot be found.
    """
    options = work.options
    if options.model is None:
        raise SegQuantError(
            f"{work.run.path} holds no exported model, and no model was named",
            hint="run 'segquant-trt compile MODEL -o RUN'",
        )
    return resolve(options.model, subfolder=options.subfolder, revision=options.revision)


def checkpoint_identity(source: ModelSource) -> dict[str, Any]:
    """Header digest, size, modification time and inode of every file, and the configuration."""
    files = []
    for path in source.checkpoint:
        status = path.stat()
        identity = [path.name, read_header(path).sha256, status.st_size]
        files.append([*identity, status.st_mtime_ns, status.st_ino])
    return {"config": digest_of(source.config), "class": source.class_name, "files": files}


def note_content(work: Work) -> None:
    """Note the digests of the checkpoint's bytes; for a stage that reads them all anyway."""
    folder = work.weights()
    verify_content([folder / name for name in work.location().mtime_ns], work.run / _LEDGER)


def verify_content(files: Iterable[Path], ledger: Path) -> None:
    """Read every byte of a checkpoint and compare with the digests of an earlier reading.

    Args:
        ledger: where digests are kept, by path, with the identity that they belong to.

    Raises:
        SegQuantError: a file's bytes have changed although its size and times have not.
    """
    known = json.loads(ledger.read_text()) if ledger.exists() else {}
    for path in files:
        status = path.stat()
        identity = [status.st_size, status.st_mtime_ns, status.st_ino]
        entry = [*identity, sha256_file(path)]
        before = known.get(str(path))
        if before is not None and before[:3] == identity and before != entry:
            raise SegQuantError(
                f"the bytes of {path} have changed, although its size and times have not",
                hint="fetch the checkpoint again, or compile into a fresh folder",
            )
        known[str(path)] = entry
    atomic_write_json(ledger, known)


def surroundings(location: CheckpointLocation) -> list[list[Any]]:
    """Name, size and time of the pipeline's files beside the denoiser: scheduler, encoders, VAE."""
    if location.pipeline_folder is None:
        return []
    root, denoiser = Path(location.pipeline_folder), Path(location.folder)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return [
        [path.relative_to(root).as_posix(), path.stat().st_size, path.stat().st_mtime_ns]
        for path in files
        if denoiser not in path.parents
    ]


def runtime_versions() -> dict[str, str | None]:
    """Versions of the packages that trace and execute models; None where not installed."""
    found: dict[str, str | None] = {}
    for package in _RUNTIMES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found
