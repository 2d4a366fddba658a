"""A graph whose prompt-constant part runs once per prompt, and remembers the last few prompts.

What a prompt gives is kept by the content of the inputs that it fixes, for whole calls: the same
arrays give what the same call gave before, whatever was called in between and by whom, so that
interleaved prompts get what separate runs get, to the bit. Guidance in one call of two samples and
in two calls of one each are different content, and both are kept. (By sample, new mixtures of known
prompts would be found, too; but calls in one batch need not equal calls on their own to the bit.)
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from segquant_trt.backends import Runner
from segquant_trt.backends.hoisting import PromptGraph, Values
from segquant_trt.records import TensorSpec
from segquant_trt.serve.inputs import Array


class HoistedRunner:
    """Feeds the main graph with what the prompt graph gives.

    Args:
        main: the graph that runs at every call.
        prompt: the graph that runs once per prompt.
        capacity: how many prompts are remembered; the least recently used is forgotten.
        batch_input: an input with one value per sample, where no prompt input need have one.
    """

    def __init__(
        self, main: Runner, prompt: PromptGraph, *, capacity: int, batch_input: str | None
    ) -> None:
        self._main = main
        self._prompt = prompt
        self._batch_input = batch_input
        self._kept = Kept(capacity)

    @property
    def prompt_runs(self) -> int:
        """How often the prompt graph ran."""
        return self._kept.computed

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The main graph's inputs, hoisted values among them."""
        return self._main.inputs

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Outputs by name; all of them unless `outputs` says which."""
        values = self._kept.of(self._key(inputs), lambda: self._prompt.values(inputs))
        return self._main.run(self._prompt.feeds(inputs, values, self._main.inputs), outputs)

    def _key(self, inputs: Mapping[str, Array]) -> bytes:
        digest = hashlib.blake2b(digest_size=32)
        for name in self._prompt.hoisted.inputs:
            array = np.ascontiguousarray(inputs[name])
            digest.update(f"{array.dtype.str}{array.shape};".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
        if self._batch_input is not None:
            digest.update(str(inputs[self._batch_input].shape).encode())
        return digest.digest()


@dataclass
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    values: Values | None = None


class Kept:
    """The values of the most recently used keys. Threads that ask for one key share one answer."""

    def __init__(self, capacity: int) -> None:
        self.computed = 0
        self._capacity = capacity
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def of(self, key: bytes, compute: Callable[[], Values]) -> Values:
        """What `compute` gave for this key, or gives now; an error of it is not remembered."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while len(self._entries) > self._capacity:
                self._entries.popitem(last=False)
        with entry.lock:
            if entry.values is None:
                entry.values = compute()
                with self._lock:
                    self.computed += 1
            return entry.values
