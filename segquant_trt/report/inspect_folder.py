"""What a folder holds: a bundle, a run or recorded inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segquant_trt.errors import SegQuantError
from segquant_trt.records import BundleFile, Manifest
from segquant_trt.records.files import sha256_file
from segquant_trt.report.description import Cell, Column, Description, Property, Table
from segquant_trt.report.inspect import read_any_record
from segquant_trt.report.inspect_record import describe_manifest
from segquant_trt.report.inspect_tensors import describe_tensors


def describe_folder(folder: Path) -> Description:
    """A bundle (every file checked), a run folder, or a folder of shards.

    Raises:
        SegQuantError: the folder is none of these, or its manifest is damaged.
    """
    if (folder / "manifest.json").is_file():
        return _bundle(folder)
    if (folder / "model.yaml").is_file():
        return _run(folder)
    shards = sorted(folder.glob("*.safetensors"))
    if shards and not (folder / "config.json").is_file():
        return _shards(folder, shards)
    raise SegQuantError(
        f"{folder} is a folder, but no bundle (manifest.json), run folder (model.yaml) "
        "or recorded inputs (*.safetensors)",
        hint="inspect one of its files; to compile a model folder use 'segquant-trt compile'",
    )


def _bundle(folder: Path) -> Description:
    manifest = read_any_record(folder / "manifest.json")
    if not isinstance(manifest, Manifest):
        raise SegQuantError(
            f"{folder / 'manifest.json'} is not a bundle's manifest", hint="build the bundle again"
        )
    states = [(file, _state(folder, file)) for file in manifest.files]
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (file.name, file.size_bytes, state, file.sha256) for file, state in states
    )
    damaged = [file.name for file, state in states if state != "ok"]
    described = describe_manifest(manifest, "manifest.json")
    files = Table(
        title="files",
        columns=(
            Column(name="file"),
            Column(name="size", unit="bytes"),
            Column(name="state"),
            Column(name="sha256"),
        ),
        rows=rows,
    )
    return replace(
        described,
        kind="bundle",
        properties=(Property(name="intact", value=not damaged), *described.properties[1:]),
        tables=(files, *described.tables),
        notes=tuple(f"{name} is not what the manifest promises" for name in damaged),
    )


def _state(folder: Path, file: BundleFile) -> str:
    path = folder / file.name
    if not path.resolve().is_relative_to(folder.resolve()):
        return "leads out of the bundle"
    if not path.is_file():
        return "missing"
    if path.stat().st_size != file.size_bytes:
        return "wrong size"
    return "ok" if sha256_file(path) == file.sha256 else "altered"


def _run(folder: Path) -> Description:
    names = sorted(
        path.name + ("/" if path.is_dir() else "")
        for path in folder.iterdir()
        if not path.name.startswith(".")
    )
    stages = sorted(path.stem for path in (folder / ".stages").glob("*.json"))
    return Description(
        kind="run folder",
        properties=(
            Property(name="folder", value=folder.resolve().name),
            Property(
                name="finished stages",
                value=", ".join(stage for stage in stages if stage != "digests") or None,
            ),
        ),
        tables=(
            Table(
                title="content",
                columns=(Column(name="name"), Column(name="size", unit="bytes")),
                rows=tuple((name, _size_bytes(folder / name)) for name in names),
            ),
        ),
    )


def _size_bytes(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def _shards(folder: Path, shards: list[Path]) -> Description:
    first = describe_tensors(shards[0])
    size_bytes = sum(shard.stat().st_size for shard in shards)
    return replace(
        first,
        properties=(
            Property(name="folder", value=folder.resolve().name),
            Property(name="shards", value=len(shards)),
            Property(name="size", value=size_bytes, unit="bytes"),
        ),
        notes=(f"the tables show {shards[0].name}",),
    )
