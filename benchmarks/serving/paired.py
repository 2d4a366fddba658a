"""The same call direct, over HTTP and over gRPC, in turns. Runs in the server's own environment.

Reads a job from stdin as JSON, writes latencies in seconds by way to stdout:

    {"repository": ..., "model": ..., "urls": {"http": ..., "grpc": ...}, "rounds": 200}
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 5


def main() -> None:
    job = json.load(sys.stdin)
    repository, model = Path(job["repository"]), job["model"]
    sys.path[:0] = [str(repository), str(repository / model / "1")]
    client = importlib.import_module("client")
    calls = importlib.import_module("segquant_served.package.served.calls")
    graphs = importlib.import_module("segquant_served.package.served.graphs").ServedGraphs(
        repository / model / "1", threads=job["threads"]
    )
    with np.load(repository / "example.npz") as stored:
        inputs = {name: stored[name] for name in stored.files}
    shared = graphs.description.shared
    samples = len(next(array for name, array in inputs.items() if name not in shared))
    sent = {
        name: np.repeat(array[None], samples, axis=0) if name in shared else array
        for name, array in inputs.items()
    }
    ways: dict[str, Callable[[], Any]] = {"direct": lambda: calls.answers(graphs, [sent])[0]}
    for protocol, url in job["urls"].items():
        denoiser = client.Denoiser(url, model, protocol=protocol)
        ways[protocol] = lambda denoiser=denoiser: denoiser(inputs)
    expected = ways["direct"]()
    order = np.random.default_rng(0)
    took: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(WARM_UP + job["rounds"]):
        for way in order.permutation(list(ways)):
            start = time.perf_counter()
            answer = ways[way]()
            seconds = time.perf_counter() - start
            assert np.array_equal(answer, expected), way
            if number >= WARM_UP:
                took[way].append(seconds)
    json.dump(took, sys.stdout)


if __name__ == "__main__":
    main()
