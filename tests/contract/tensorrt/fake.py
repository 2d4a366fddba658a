"""A `tensorrt` module that has what one version has, and nothing else.

It is made from the snapshot of the real bindings: every class, method, property and enum of that
version is there, arguments are checked against the real signatures, and whatever the version
lacks raises as the real module would. What its objects answer is scripted; every call is recorded.
"""

from __future__ import annotations

import enum
import functools
import gzip
import json
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SNAPSHOTS = Path(__file__).parent / "snapshots"
VERSIONS = ("10.9.0.34", "10.13.3.9.post1", "10.16.1.11", "11.0.0.114", "11.4.0.106")

_ALIASES = {"IParserError": "ParserError", "ErrorCodeTRT": "ErrorCodeTRT"}
_PLAIN: dict[str, tuple[type, ...]] = {
    "int": (int,), "bool": (bool, int), "float": (int, float), "str": (str,),
    "Buffer": (bytes, bytearray, memoryview),
}  # fmt: skip
_DEFAULTS: dict[str, Any] = {
    "int": 0, "bool": True, "float": 0.0, "str": "", "None": None,
    "CapsuleType": "a capsule", "capsule": "a capsule",
}  # fmt: skip


@functools.cache
def load_snapshot(version: str) -> dict[str, Any]:
    return json.loads(gzip.decompress((SNAPSHOTS / f"{version}.json.gz").read_bytes()))


class Missing(AttributeError):
    """This version has no such name."""


@dataclass(frozen=True)
class Parameter:
    name: str
    kind: str
    optional: bool


@dataclass(frozen=True)
class Signature:
    parameters: tuple[Parameter, ...]
    returns: str

    @staticmethod
    @functools.cache
    def of(text: str) -> Signature:
        inside, _, returns = text.rpartition(" -> ")
        parameters = [part for part in split_outside(inside[1:-1]) if part != "self"]
        return Signature(tuple(_parameter(part) for part in parameters), plain_type(returns))

    def bind(self, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Any] | None:
        """Arguments by name, or None where their number or names do not fit."""
        names = [parameter.name for parameter in self.parameters]
        if len(arguments) > len(names) or not set(keywords) <= set(names[len(arguments) :]):
            return None
        given = dict(zip(names, arguments, strict=False)) | dict(keywords)
        wanted = {parameter.name for parameter in self.parameters if not parameter.optional}
        return given if wanted <= given.keys() else None


def split_outside(text: str) -> list[str]:
    """Split at commas that are in no bracket."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _parameter(text: str) -> Parameter:
    name, _, rest = text.partition(":")
    kind, default, _ = rest.partition("=")
    return Parameter(name.strip(), plain_type(kind), bool(default) or "=" in name)


def plain_type(text: str) -> str:
    bare = re.sub(r"\b(?:nvinfer1|nvonnxparser|v_1_0)::", "", text.strip())
    return _ALIASES.get(bare, bare)


@dataclass(frozen=True)
class Call:
    name: str
    arguments: dict[str, Any]


@dataclass
class Script:
    """What objects answer, by "Class.member": a value, or a function of object and arguments."""

    answers: dict[str, Any] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def names(self) -> list[str]:
        return [call.name for call in self.calls]

    def of(self, name: str) -> list[dict[str, Any]]:
        return [call.arguments for call in self.calls if call.name == name]


class Fake:
    """Base of all objects."""

    _entry: Mapping[str, Any]
    _world: World

    def __setattr__(self, name: str, value: Any) -> None:
        # Python classes that derive from TensorRT's may have attributes of their own.
        kind = self._world.property_of(type(self), name)
        if kind is None:
            if type(self).__dict__.get("_entry") is not None:
                raise Missing(f"'{type(self).__name__}' object has no attribute '{name}'")
            object.__setattr__(self, name, value)
            return
        if not kind[1]:
            raise AttributeError(f"property '{name}' of '{type(self).__name__}' has no setter")
        self._world.check_value(value, plain_type(kind[0]), f"{type(self).__name__}.{name}")
        self._world.script.calls.append(Call(f"{type(self).__name__}.{name}=", {"value": value}))
        self.__dict__[f"={name}"] = value


class Classes(dict[str, type]):
    """Classes by name, each made when it is first asked for."""

    def __init__(self, world: World, names: Iterable[str]) -> None:
        super().__init__()
        self._world = world
        self._names = frozenset(names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __missing__(self, name: str) -> type:
        if name not in self._names:
            raise KeyError(name)
        self[name] = made = self._world.make_class(name)
        return made


class World:
    """The module and everything that it holds."""

    def __init__(self, version: str, script: Script) -> None:
        self.script = script
        self._snapshot = load_snapshot(version)
        self.classes = Classes(self, self._snapshot["classes"])
        self.module = self._make_module()

    def make_class(self, name: str) -> type:
        entry = self._snapshot["classes"][name]
        if "members" in entry:
            made: type = make_enum(name, entry["members"])
        else:
            bases = [self.classes[b] for b in entry["bases"] if b in self.classes]
            members: dict[str, Any] = {"_entry": entry, "_world": self}
            for nested, inner in entry["nested"].items():
                members[nested] = make_enum(nested, inner["members"])
            for method, texts in entry["methods"].items():
                members[method] = self._method(name, method, texts)
            for prop, (kind, _) in entry["properties"].items():
                members[prop] = property(self._getter(name, prop, kind))
            if name == "IHostMemory":
                bases = [Fake, bytearray]  # what offers its memory, as the real one does
            made = type(name, tuple(bases) or (Fake,), members)
        return made

    def _make_module(self) -> types.ModuleType:
        module = types.ModuleType("tensorrt")
        functions = {
            name: self._method("", name, texts, bound=False)
            for name, texts in self._snapshot["functions"].items()
        }

        def find(name: str) -> type:
            if name not in self.classes:
                raise Missing(f"module 'tensorrt' has no attribute '{name}'")
            return self.classes[name]

        module.__dict__.update(functions, __version__=self._snapshot["version"], __getattr__=find)
        return module

    def property_of(self, kind: type, name: str) -> list[Any] | None:
        for base in kind.__mro__:
            found = base.__dict__.get("_entry", {}).get("properties", {}).get(name)
            if found is not None:
                return found
        return None

    def new(self, name: str) -> Any:
        """An object that only TensorRT itself can make."""
        made = self.classes[name]
        if issubclass(made, bytearray):
            return made.__new__(made)
        return object.__new__(made)

    def _method(
        self, owner: str, name: str, texts: Sequence[str], *, bound: bool = True
    ) -> Callable[..., Any]:
        label = f"{owner}.{name}" if owner else name

        def call(*arguments: Any, **keywords: Any) -> Any:
            this, rest = (arguments[0], arguments[1:]) if bound else (None, arguments)
            signatures = [Signature.of(text) for text in texts]
            if name == "__init__" and not signatures:
                raise TypeError(f"{owner}: No constructor defined!")
            errors: list[str] = []
            for signature in signatures:
                given = signature.bind(rest, keywords)
                if given is None:
                    errors.append(f"{label}{texts} does not take {rest} {keywords}")
                    continue
                try:
                    self._check(signature, given, label)
                except TypeError as error:
                    errors.append(str(error))
                    continue
                self.script.calls.append(Call(label, given))
                answer = self.value(this, label, signature.returns, given)
                return None if name == "__init__" else answer
            raise TypeError("; ".join(errors) or f"{label} has no known signature")

        return call

    def _getter(self, owner: str, name: str, kind: str) -> Callable[[Any], Any]:
        def read(this: Any) -> Any:
            if f"={name}" in this.__dict__:
                return this.__dict__[f"={name}"]
            return self.value(this, f"{owner}.{name}", plain_type(kind))

        return read

    def value(
        self, this: Any, label: str, kind: str, given: Mapping[str, Any] | None = None
    ) -> Any:
        if label in self.script.answers:
            answer = self.script.answers[label]
            if isinstance(answer, types.FunctionType):
                return answer(this, **(given or {}))
            return answer
        if kind in _DEFAULTS:
            return _DEFAULTS[kind]
        if kind.lower().startswith(("list", "sequence", "tuple")):
            return []
        if kind not in self.classes:
            return None
        made = self.classes[kind]
        if issubclass(made, enum.Enum):
            return next(iter(made))
        return self.new(kind)

    def _check(self, signature: Signature, given: Mapping[str, Any], label: str) -> None:
        for parameter in signature.parameters:
            if parameter.name in given and not (
                given[parameter.name] is None and parameter.optional
            ):
                self.check_value(
                    given[parameter.name], parameter.kind, f"{label}({parameter.name})"
                )

    def check_value(self, value: Any, kind: str, where: str) -> None:
        if kind in ("Dims", "tuple", "list") or kind.startswith(("Sequence", "List", "list")):
            fits = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
        elif kind in _PLAIN:
            fits = isinstance(value, _PLAIN[kind])
        elif kind in self.classes:
            fits = isinstance(value, self.classes[kind])
        else:
            fits = True
        if not fits:
            raise TypeError(f"{where}: {value!r} is no {kind}")


def make_enum(name: str, members: Mapping[str, int]) -> type[enum.Enum]:
    """As pybind11's: no integer, but convertible into one."""

    class Number(enum.Enum):
        def __int__(self) -> int:
            return int(self.value)

        __index__ = __int__

    made = Number(name, dict(members))  # type: ignore[call-overload]
    assert isinstance(made, type)
    return made


def fake_tensorrt(version: str, answers: Mapping[str, Any] | None = None) -> tuple[Any, Script]:
    """The module of this version, and its script."""
    script = Script(answers=dict(answers or {}))
    world = World(version, script)
    script.answers.setdefault("world", world)
    return world.module, script


def versions() -> Iterator[str]:
    yield from VERSIONS
