"""From `{name: ..., **fields}`, as a recipe writes it, to the registered dataclass that it describes."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from latentwire.errors import RecipeError
from latentwire.registry import Registry, nearest

T = TypeVar("T")
Spec = dict[str, Any]


def build(registry: Registry[type[T]], spec: Spec) -> T:
    """The registered dataclass that `{name: ..., **fields}` describes.

    Raises:
        RegistryError: Unknown name.
        RecipeError: Unknown field (with the nearest), or a value of the wrong type.
    """
    fields = dict(spec)
    name = fields.pop("name", None)
    if not isinstance(name, str):
        raise RecipeError(f"expected a {registry.kind} as {{name: ..., fields}}, got {spec}; add its name")
    entry = registry[name]
    known = [field.name for field in dataclasses.fields(entry) if field.init]  # type: ignore[arg-type]
    for key in fields:
        if key not in known:
            raise RecipeError(f"{registry.kind} '{name}' has no field '{key}': {nearest(key, known)}")
    try:
        return TypeAdapter(entry).validate_python(fields)
    except ValidationError as error:
        problems = "; ".join(explain(dict(item)) for item in error.errors())
        raise RecipeError(f"{registry.kind} '{name}': {problems}") from None


def explain(error: Mapping[str, Any]) -> str:
    """One problem that pydantic found, in words."""
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"missing field '{place}'"
    return f"field '{place}': {error['msg'].lower()}, got {error['input']!r}"
