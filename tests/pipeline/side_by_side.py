"""A small run folder whose bundle, float model and files can be set side by side."""

from __future__ import annotations

from pathlib import Path

import onnx

from segquant_trt.records import CheckpointLocation, Manifest, Quality
from segquant_trt.records.codec import to_plain, write_record
from segquant_trt.records.files import atomic_write_json, sha256_file
from tests.bundles import make_bundle, spec_of
from tests.small_graphs import facts_of


def make_run(run: Path, *, latent_sqnr_db: float | None = 40.5) -> Manifest:
    """A run folder with a float model, a bundle and, where it was verified, its quality."""
    bundle, manifest = make_bundle(run)
    # ONNX Runtime reads axes from the file itself only.
    onnx.save(onnx.load(str(run / "model.onnx")), str(run / "model.onnx"))
    write_record(run / "model.yaml", spec_of(facts_of(run / "model.onnx")))
    location = CheckpointLocation(
        folder=str(run.resolve()), pipeline_folder=None, mtime_ns={}, inode={}
    )
    write_record(run / "model.location.yaml", location)
    if latent_sqnr_db is not None:
        quality = Quality(
            bundle_manifest_sha256=sha256_file(bundle / "manifest.json"),
            sqnr_db_mean=44.0,
            sqnr_db_worst=30.0,
            steps=(),
            latent_sqnr_db=latent_sqnr_db,
            latent_sqnr_db_float16=None,
            psnr_db=None,
            ssim=None,
            classifier_accuracy=None,
            classifier_accuracy_float=None,
            frechet_distance=None,
            frechet_distance_float=None,
            site_errors=(),
            samples=4,
            scheduler_steps=None,
            guidance_scale=None,
            not_applicable=(),
        )
        atomic_write_json(run / "quality.json", to_plain(quality))
    return manifest
