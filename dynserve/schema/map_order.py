"""Maps in the JSON form of a message, in the order of their keys.

protobuf gives the entries of a map in an order that differs from process to process, so that the
same message would be printed in another way each time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pool import LazyPool

__all__ = ["can_hold_maps", "sort_maps"]

_NUMBER = re.compile("-?[0-9]{1,20}")
_WELL_KNOWN = "google.protobuf."
_ANY_JSON = ("Struct", "Value", "ListValue")  # whose JSON form is whatever they hold


def can_hold_maps(descriptor: Any) -> bool:
    """Whether a map, or what is like one, may be anywhere in a message of the type."""
    seen = {descriptor.full_name}
    todo = [descriptor]
    while todo:
        one = todo.pop()
        name = one.full_name.removeprefix(_WELL_KNOWN)
        if one.GetOptions().map_entry or one.is_extendable or name in (*_ANY_JSON, "Any"):
            return True
        inner = [field.message_type for field in one.fields if field.message_type is not None]
        new = {message.full_name: message for message in inner if message.full_name not in seen}
        seen.update(new)
        todo += new.values()
    return False


def sort_maps(form: Any, descriptor: Any, pool: LazyPool) -> Any:
    """The form, with what is a map in it sorted by key; numbers by their value."""
    if not isinstance(form, dict):
        is_any_json = descriptor.full_name.startswith(_WELL_KNOWN)
        return _sorted_json(form) if is_any_json and isinstance(form, list) else form
    if descriptor.full_name.startswith(_WELL_KNOWN):
        name = descriptor.full_name.removeprefix(_WELL_KNOWN)
        if name in _ANY_JSON:
            return _sorted_json(form)
        if name == "Any" and "@type" in form:
            content = pool.FindMessageTypeByName(form["@type"].rpartition("/")[2])
            if "value" in form and content.full_name.startswith(_WELL_KNOWN):
                form["value"] = sort_maps(form["value"], content, pool)
                return form
            return sort_maps(form, content, pool)
    for key, value in form.items():
        field = _field(key, descriptor, pool)
        if field is not None and field.message_type is not None:
            form[key] = _sorted_field(value, field, pool)
    return form


def _sorted_field(value: Any, field: Any, pool: LazyPool) -> Any:
    message = field.message_type
    if not message.GetOptions().map_entry:
        if field.is_repeated:
            return [sort_maps(item, message, pool) for item in value]
        return sort_maps(value, message, pool)
    inner = message.fields_by_name["value"].message_type
    if inner is not None:
        value = {key: sort_maps(item, inner, pool) for key, item in value.items()}
    return dict(sorted(value.items(), key=_key))


def _key(entry: tuple[Any, Any]) -> tuple[int, str]:
    """Numbers are text in JSON, and come by their value."""
    key = str(entry[0])
    if _NUMBER.fullmatch(key):
        return (int(key), key)
    return (0, key)


def _field(key: str, descriptor: Any, pool: LazyPool) -> Any:
    if key.startswith("["):  # an extension
        return pool.FindExtensionByName(key[1:-1])
    by_name = descriptor.fields_by_name.get(key)
    return descriptor.fields_by_camelcase_name.get(key) if by_name is None else by_name


def _sorted_json(form: Any) -> Any:
    if isinstance(form, dict):
        return {key: _sorted_json(form[key]) for key in sorted(form)}
    return [_sorted_json(item) for item in form] if isinstance(form, list) else form
