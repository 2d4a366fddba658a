"""Bundles and repositories, each made when it is first asked for."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from segquant_trt.package import ServingOptions, package_bundle
from segquant_trt.serve.integrity import checked_manifest
from tests.package.bundles import BUNDLES
from tests.shared import LazyFolders, run_folder


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> LazyFolders:
    """Run folders with a `bundle` each, by kind; read only."""
    makers = {
        kind: functools.partial(lambda folder, make: make(folder), make=make)
        for kind, make in BUNDLES.items()
    }
    return LazyFolders(run_folder(tmp_path_factory) / "packaged-bundles", makers)


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory, bundles: LazyFolders) -> LazyFolders:
    """Repositories of these bundles, under the model names of their kinds; read only."""

    def package(folder: Path, kind: str) -> None:
        bundle = bundles[kind] / "bundle"
        options = ServingOptions(name=kind, threads=1)
        package_bundle(bundle, checked_manifest(bundle), folder, options)

    makers = {kind: functools.partial(package, kind=kind) for kind in BUNDLES}
    return LazyFolders(run_folder(tmp_path_factory) / "repositories", makers)
