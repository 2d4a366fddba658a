"""Calls a server from several threads and compares every answer with what it must be, bit by bit.

Runs in the server's own environment, which has tritonclient. Reads a job from stdin as JSON and
writes one JSON object to stdout.

    {"client": path of a repository's client.py, "protocol": "http", "url": ..., "threads": 4,
     "models": {name: [[inputs.npz, expected.npy], ...]}, "rounds": 2}

Every thread goes through all calls of all models, each beginning elsewhere. Latencies are in
seconds, in the order in which the calls ended.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
import types
from typing import Any

import numpy as np


def module_at(path: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("client", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def loaded(models: dict[str, list[list[str]]]) -> list[tuple[str, dict[str, Any], Any]]:
    found = []
    for model, pairs in models.items():
        for inputs, expected in pairs:
            with np.load(inputs) as stored:
                call = {name: stored[name] for name in stored.files}
            found.append((model, call, np.load(expected)))
    return found


def main() -> None:
    job = json.load(sys.stdin)
    client = module_at(job["client"])
    calls = loaded(job["models"])
    threads, rounds = job["threads"], job["rounds"]
    latencies: list[float] = []
    wrong: list[str] = []
    errors: list[str] = []
    lock, ready = threading.Lock(), threading.Barrier(threads + 1)

    def work(number: int) -> None:
        denoisers = {
            model: client.Denoiser(job["url"], model, protocol=job["protocol"])
            for model in job["models"]
        }
        ready.wait(timeout=60)
        for index in range(rounds * len(calls)):
            model, inputs, expected = calls[(index + number * 5) % len(calls)]
            start = time.perf_counter()
            try:
                answer = denoisers[model](inputs)
            except Exception as error:
                with lock:
                    errors.append(f"{model}: {error}")
                continue
            took = time.perf_counter() - start
            same = answer.dtype == expected.dtype and np.array_equal(answer, expected)
            with lock:
                latencies.append(took)
                if not same:
                    wrong.append(f"thread {number}, call {index} of {model}")
        for denoiser in denoisers.values():
            denoiser.__exit__(None, None, None)

    workers = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(threads)]
    for worker in workers:
        worker.start()
    ready.wait(timeout=60)
    start = time.perf_counter()
    for worker in workers:
        worker.join()
    wall = time.perf_counter() - start
    json.dump(
        {"answered": len(latencies), "wrong": wrong, "errors": errors, "wall_s": wall,
         "latencies_s": latencies},
        sys.stdout,
    )  # fmt: skip


if __name__ == "__main__":
    main()
