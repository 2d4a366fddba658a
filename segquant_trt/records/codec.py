"""YAML codec of records: strict both ways (an unknown or missing key is an error)."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

from segquant_trt.errors import SegQuantError
from segquant_trt.records.files import atomic_write_bytes

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")

_DEEPEST = 64  # records nest less than ten deep; the C loader's stack ends at some ten thousand
_FLOAT32_MAX = 3.4028234663852886e38


@functools.cache
def _converter() -> Converter:
    import cattrs

    from segquant_trt.records.plan import SitePlan
    from segquant_trt.records.treatment import ActivationScheme, RowFactor

    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(bool, _boolean)
    converter.register_structure_hook(int | str, _axis)
    converter.register_structure_hook_func(_is_literal, _one_of)
    for optional, hook in ((str, _text), (float, _number), (int, _integer), (bool, _boolean)):
        converter.register_structure_hook(optional | None, _optional(hook))
    for union, noun in ((ActivationScheme, "scheme"), (RowFactor, "row factor")):
        converter.register_structure_hook(union, _union_hook(converter, union, noun))
    converter.register_structure_hook(SitePlan, _site_hook(converter, SitePlan))
    return converter


def _kind(scheme: Any) -> str:
    return next(str(field.default) for field in fields(scheme) if field.name == "kind")


def _union_hook(converter: Converter, union: Any, noun: str) -> Any:
    """Structure a union by its `kind`, naming the kinds there are when it is none of them."""
    kinds = {_kind(scheme): scheme for scheme in get_args(union)}

    def structure(value: Any, _: Any) -> Any:
        kind = value.get("kind") if isinstance(value, dict) else None
        if kind not in kinds:
            raise ValueError(f"{noun} {kind!r} is unknown; allowed: {', '.join(kinds)}")
        return converter.structure(value, kinds[kind])

    return structure


def _site_hook(converter: Converter, kind: Any) -> Any:
    """Structure a plan's site, and refuse an output range that no code can cover."""
    from cattrs.gen import make_dict_structure_fn

    plain = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)

    def structure(value: Any, _: Any) -> Any:
        site = plain(value, kind)
        if site.output_range is not None:
            low, high = site.output_range
            if not -_FLOAT32_MAX <= low <= high <= _FLOAT32_MAX:
                raise ValueError(
                    f"site '{site.site}' has output_range [{low}, {high}]; allowed: two finite "
                    "float32 numbers in ascending order"
                )
        return site

    return structure


def _optional(hook: Any) -> Any:
    return lambda value, kind: None if value is None else hook(value, kind)


def _number(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"expected a number, got {value!r}")
    return float(value)


def _integer(value: Any, _: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected an integer, got {value!r}")
    return value


def _text(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def _boolean(value: Any, _: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"expected true or false, got {value!r}")
    return value


def _is_literal(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is Literal


def _one_of(value: Any, kind: Any) -> Any:
    allowed = get_args(kind)
    if not any(value == each and type(value) is type(each) for each in allowed):
        raise ValueError(f"{value!r} is unknown; allowed: {', '.join(map(str, allowed))}")
    return value


def _axis(value: Any, _: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError(f"expected an axis length or name, got {value!r}")
    return value


def to_plain(record: Any) -> Any:
    """The record as nested dicts, lists and scalars."""
    return _plain(_converter().unstructure(record))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def from_plain(value: Any, kind: type[T], *, origin: str) -> T:
    """Build a record of type `kind`.

    Raises:
        SegQuantError: naming `origin` and the first offending key.
    """
    from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError

    try:
        if is_dataclass(kind) and not isinstance(value, dict):
            raise TypeError("expected keys and values")
        return _converter().structure(value, kind)
    except (BaseValidationError, ForbiddenExtraKeysError, TypeError, ValueError, KeyError) as error:
        from cattrs import transform_error

        grouped = isinstance(error, BaseValidationError)
        reasons = transform_error(error, format_exception=_reason) if grouped else [str(error)]
        name = getattr(kind, "__name__", str(kind))
        raise SegQuantError(
            f"{origin} is not a valid {name}: {'; '.join(reasons[:3])}",
            hint="undo the edit, or run the stage that writes this file again",
        ) from error


def _reason(error: BaseException, kind: type | None) -> str:
    from cattrs.v import format_exception

    if isinstance(error, AttributeError):  # cattrs asks whatever is there for its keys
        return "expected keys and values"
    known = isinstance(error, ValueError) and "; allowed: " in str(error)
    return str(error) if known else format_exception(error, kind)


def encode_yaml(record: Any) -> bytes:
    """The record as YAML, keys in field order."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump(
        to_plain(record), Dumper=dumper, sort_keys=False, width=110, default_flow_style=None
    )
    return str(text).encode()


def write_record(path: Path, record: Any) -> None:
    """Write `record` to `path` as YAML, atomically."""
    atomic_write_bytes(path, encode_yaml(record))


def read_record(path: Path, kind: type[T]) -> T:
    """Read a record of type `kind` from YAML.

    Raises:
        SegQuantError: the file is missing, unreadable, not YAML, of another schema version, or
            has an unknown, missing or mistyped key.
    """
    value = read_yaml(path)
    expected = getattr(kind, "SCHEMA_VERSION", None)
    if expected is not None:
        found = value.get("schema_version") if isinstance(value, dict) else None
        if found != expected:
            raise SegQuantError(
                f"{path} has schema_version {found!r}; this program reads {expected}",
                hint=f"put 'schema_version: {expected}' at its top if you wrote it yourself, or "
                "run the stage that writes it again with this version",
            )
    return from_plain(value, kind, origin=str(path))


def read_yaml(path: Path) -> Any:
    """Parse a YAML file.

    Raises:
        SegQuantError: missing, unreadable, malformed, nested deeper than any record, or a mapping
            has one key twice.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SegQuantError(
            f"{path} does not exist", hint="run the stage that writes this file first"
        ) from error
    except UnicodeDecodeError as error:
        raise SegQuantError(
            f"{path} is not a text file", hint="run the stage that writes this file again"
        ) from error
    except OSError as error:
        raise SegQuantError(
            f"{path} cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from error
    try:
        if _depth_exceeds(_DEEPEST, yaml.parse(text, Loader=loader)):
            raise SegQuantError(
                f"{path} nests lists or mappings more than {_DEEPEST} deep",
                hint="undo the edit, or run the stage that writes this file again",
            )
        document = loader(text)
        root = document.get_single_node()
        _check_keys(path, root)
        return None if root is None else document.construct_document(root)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number that is none
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise SegQuantError(
            f"{path} is not valid YAML: {reason}",
            hint="undo the edit, or run the stage that writes this file again",
        ) from error


def _depth_exceeds(limit: int, events: Iterable[Any]) -> bool:
    from yaml.events import CollectionEndEvent, CollectionStartEvent

    depth = 0
    for event in events:
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > limit:
            return True
    return False


def _check_keys(path: Path, root: Any) -> None:
    """Refuse a mapping that has one key twice: the loader would silently take the last one."""
    from yaml.nodes import MappingNode, ScalarNode, SequenceNode

    waiting: list[Any] = [root]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # of an alias
            continue
        seen.add(id(node))
        if isinstance(node, SequenceNode):
            waiting += reversed(node.value)
        if not isinstance(node, MappingNode):
            continue
        waiting += [value for _, value in reversed(node.value)]
        known: dict[tuple[str, str], Any] = {}
        for key in (key for key, _ in node.value if isinstance(key, ScalarNode)):
            first = known.setdefault((key.tag, key.value), key)
            if first is not key:
                raise SegQuantError(
                    f"{path} has the key '{key.value}' twice in one mapping, in lines "
                    f"{first.start_mark.line + 1} and {key.start_mark.line + 1}",
                    hint="keep one of them: the other would be lost",
                )
