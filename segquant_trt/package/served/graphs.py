"""One call of the denoiser: tables or fallback, and what is computed once per prompt."""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from segquant_trt.errors import SegQuantError
from segquant_trt.package.served.description import GRAPHS, Description, read_description
from segquant_trt.package.served.sessions import (
    Array,
    GraphSession,
    int8_sums_are_exact,
    open_graph,
)
from segquant_trt.records.step_rows import missed_steps, step_indices

MAIN = "model.onnx"
FALLBACK = "fallback.onnx"
PROMPT = "prompt.onnx"

Values = dict[str, Array]


class ServedGraphs:
    """The graphs of a version folder; not to be shared by threads.

    Args:
        version_folder: holds `served.json`.
        threads: of the runtime; 0: all cores.
        kept_prompts: for how many prompts what depends on them alone is remembered; 0: it is
            computed at every call, for the steps of that call.

    Raises:
        SegQuantError: a file is damaged, or the runtime is missing or refuses a graph.
    """

    def __init__(self, version_folder: Path, *, threads: int = 0, kept_prompts: int = 0) -> None:
        self.description: Description = read_description(version_folder)
        folder = version_folder / GRAPHS
        opened = functools.partial(open_graph, threads=threads, exact=int8_sums_are_exact(folder))
        self._main: GraphSession = opened(folder / MAIN)
        self._fallback = functools.cache(lambda: opened(folder / FALLBACK))
        hoists = self.description.hoisted is not None
        self._prompt: GraphSession | None = opened(folder / PROMPT) if hoists else None
        self._kept = KeptValues(kept_prompts)
        self.keeps_prompts = hoists and kept_prompts > 0
        self.prompt_runs = 0  # of the prompt's graph

    def on_steps(self, inputs: Mapping[str, Array]) -> bool:
        """Whether the main graph can make this call: every sample is at a step that it has.

        Raises:
            SegQuantError: it cannot, and there is no other graph.
        """
        frozen = self.description.frozen
        if frozen is None:
            return True
        missed = missed_steps(frozen, inputs[frozen.timestep])
        if missed.size and not frozen.fallback:
            steps = ", ".join(f"{step:g}" for step in frozen.timesteps)
            raise SegQuantError(
                f"timestep {missed[0]:g} is not among the {len(frozen.timesteps)} that this model "
                f"was frozen to ({frozen.schedule}): {steps}",
                hint="use this schedule, or package a bundle that has a fallback",
            )
        return not missed.size

    def run(self, inputs: Mapping[str, Array]) -> Array:
        """The prediction for checked inputs, as `segquant_trt.load(bundle).run` gives it.

        Raises:
            SegQuantError: a timestep has no table and no fallback; the runtime fails.
        """
        output = (self.description.output.name,)
        if not self.on_steps(inputs):
            return self._fallback().run(inputs, output)[output[0]]
        given = {**inputs, **self._hoisted(inputs)}
        return self._main.run({name: given[name] for name in self._main.inputs}, output)[output[0]]

    def _hoisted(self, inputs: Mapping[str, Array]) -> Values:
        """What the main graph reads of the prompt's graph in this call."""
        hoisted, frozen = self.description.hoisted, self.description.frozen
        if hoisted is None:
            return {}
        if frozen is None or hoisted.row_input is None:
            return self._remembered(inputs, lambda: self._prompt_values(inputs))
        rows = step_indices(frozen.timesteps, inputs[frozen.timestep])
        samples = np.arange(len(rows))
        if not self.keeps_prompts:
            return self._prompt_values(inputs, rows=samples, steps=rows)
        every = np.arange(len(frozen.timesteps))
        grid = {
            "rows": np.repeat(samples, len(every)),
            "steps": np.tile(every, len(samples)),
        }
        values = self._remembered(inputs, lambda: self._prompt_values(inputs, **grid))
        places = samples * len(every) + rows
        return {**values, **{name: values[name][places] for name in hoisted.by_step}}

    def _remembered(self, inputs: Mapping[str, Array], compute: Callable[[], Values]) -> Values:
        return self._kept.of(self._key(inputs), compute) if self.keeps_prompts else compute()

    def _prompt_values(
        self,
        inputs: Mapping[str, Array],
        *,
        rows: Array | None = None,
        steps: Array | None = None,
    ) -> Values:
        """What the prompt decides; values by step have a row for each sample and step asked for."""
        hoisted, frozen = self.description.hoisted, self.description.frozen
        assert hoisted is not None
        assert self._prompt is not None
        self.prompt_runs += 1
        feeds = {name: inputs[name] for name in hoisted.inputs}
        if frozen is not None and hoisted.row_input is not None:
            times = np.array(frozen.timesteps).astype(inputs[frozen.timestep].dtype)
            feeds[frozen.timestep] = times[steps]
            feeds[hoisted.row_input] = np.asarray(rows, dtype=np.int64)
        return self._prompt.run(feeds, hoisted.values)

    def _key(self, inputs: Mapping[str, Array]) -> bytes:
        hoisted, frozen = self.description.hoisted, self.description.frozen
        assert hoisted is not None
        digest = hashlib.blake2b(digest_size=32)
        for name in hoisted.inputs:
            array = np.ascontiguousarray(inputs[name])
            digest.update(f"{array.dtype.str}{array.shape};".encode())
            digest.update(array.tobytes())
        if frozen is not None and hoisted.by_step:
            digest.update(str(inputs[frozen.timestep].shape).encode())
        return digest.digest()


class KeptValues:
    """The values of the most recently used keys."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._values: OrderedDict[bytes, Values] = OrderedDict()

    def of(self, key: bytes, compute: Callable[[], Values]) -> Values:
        """What `compute` gave for this key, or gives now."""
        found = self._values.get(key)
        if found is None:
            found = self._values[key] = compute()
        self._values.move_to_end(key)
        while len(self._values) > self._capacity:
            self._values.popitem(last=False)
        return found
