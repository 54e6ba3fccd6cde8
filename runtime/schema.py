"""JSON into frozen dataclasses, strictly: the annotations are the schema.

Every key of the class must be there, no other may be, and each value has its annotated
type; a default of the class doesn't make a key optional. Understood are str, int,
float, bool, object (anything), None, unions, Literal, tuple[X, ...], Mapping[str, X]
and other dataclasses. The dataclasses of a union are told apart by a field that each
has as a Literal of one value.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from seq2edge.runtime.errors import ConfigError

T = TypeVar("T")


class SchemaError(ValueError):
    """Everything that is wrong with a value, a phrase for each fault."""


def parse(kind: type[T], value: object) -> T:
    """Make a `kind`, a dataclass, from parsed JSON, or raise SchemaError."""
    faults: list[str] = []
    parsed = _parse(kind, value, "", faults)
    if faults:
        raise SchemaError("; ".join(faults))
    assert isinstance(parsed, kind)
    return parsed


def to_json(instance: Any) -> dict[str, Any]:
    """The JSON object that `parse` reads back as an equal instance."""
    plain: dict[str, Any] = _lists(asdict(instance))
    return plain


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_lists(item) for item in value]
    return value


def _parse(kind: Any, value: object, where: str, faults: list[str]) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is object:
        return value
    if is_dataclass(kind):
        return _parse_dataclass(kind, value, where, faults)
    if _is_choice(kind, value):
        return value
    if origin is tuple and isinstance(value, list):
        items = enumerate(value)
        return tuple(_parse(arguments[0], v, f"{where}[{i}]", faults) for i, v in items)
    if origin is Mapping and isinstance(value, dict):
        return {
            key: _parse(arguments[1], item, _join(where, key), faults)
            for key, item in value.items()
        }
    if origin in (UnionType, Union):
        return _parse_union(arguments, value, where, faults)
    if _is_scalar(kind, value):
        return float(value) if kind is float else value  # type: ignore[arg-type]
    faults.append(f"{where or 'it'} must be {_describe(kind)}, not {_show(value)}")
    return None


def _parse_dataclass(kind: Any, value: object, where: str, faults: list[str]) -> Any:
    if not isinstance(value, dict):
        faults.append(f"{where or 'it'} must be an object, not {_show(value)}")
        return None
    types = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    before = len(faults)
    faults += [
        f"{_join(where, name)} is missing" for name in names if name not in value
    ]
    unknown = sorted(value.keys() - names)
    faults += [f"{_join(where, key)} is not a known key" for key in unknown]
    parsed = {
        name: _parse(types[name], value[name], _join(where, name), faults)
        for name in names
        if name in value
    }
    if len(faults) > before:
        return None
    try:
        return kind(**parsed)
    except ConfigError as error:  # the class has checks of its own
        faults.append(f"{where}: {error}" if where else str(error))
        return None


def _parse_union(
    kinds: tuple[Any, ...], value: object, where: str, faults: list[str]
) -> Any:
    """The first member that fits; with one member beside None, its own faults."""
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) == 1:
        return _parse(kinds[0], value, where, faults)
    classes = [kind for kind in kinds if is_dataclass(kind)]
    if classes and isinstance(value, dict):
        return _parse_named(classes, value, where, faults)
    for kind in kinds:
        if _is_scalar(kind, value) or _is_choice(kind, value):
            return value
    wanted = " or ".join(_describe(kind) for kind in kinds)
    faults.append(f"{where} must be {wanted}, not {_show(value)}")
    return None


def _parse_named(
    classes: list[Any], value: dict[Any, Any], where: str, faults: list[str]
) -> Any:
    """The class whose constant the object bears: a field that is a Literal of one."""
    hints = {kind: get_type_hints(kind) for kind in classes}
    [name] = {
        name
        for known in hints.values()
        for name, hint in known.items()
        if get_origin(hint) is Literal and len(get_args(hint)) == 1
    }
    constants = {get_args(known[name])[0]: kind for kind, known in hints.items()}
    if not isinstance(value.get(name), str) or value[name] not in constants:
        listed = " or ".join(map(repr, constants))
        given = _show(value[name]) if name in value else "missing"
        faults.append(f"{_join(where, name)} must be {listed}, not {given}")
        return None
    return _parse_dataclass(constants[value[name]], value, where, faults)


def _is_choice(kind: Any, value: object) -> bool:
    is_text = isinstance(value, str)
    return get_origin(kind) is Literal and is_text and value in get_args(kind)


def _is_scalar(kind: Any, value: object) -> bool:
    if kind is float:
        return _is_scalar(int, value) or (
            isinstance(value, float) and math.isfinite(value)
        )
    return kind in (str, int, bool) and type(value) is kind  # True is no int here


def _describe(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in get_args(kind))
    names = {
        str: "a string",
        int: "an integer",
        float: "a number",
        bool: "true or false",
    }
    return names.get(kind, "a list" if origin is tuple else "an object")


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
