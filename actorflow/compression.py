"""What changed between two mappings, and how much smaller that is. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, final

import attrs

from actorflow import clock
from actorflow.errors import InvalidDeltaError


@final
@attrs.frozen
class CompressionMetrics:
    """What a delta saves, in bytes of JSON."""

    original_bytes: int
    delta_bytes: int
    duration_ms: float = 0.0

    @property
    def reduction_bytes(self) -> int:
        """How many bytes fewer the delta has; 0 if it has more."""
        return max(self.original_bytes - self.delta_bytes, 0)

    @property
    def ratio(self) -> float:
        """Size of the delta as a fraction of the original."""
        return self.delta_bytes / self.original_bytes if self.original_bytes else 1.0

    @property
    def compression_ratio(self) -> float:
        """Another name of `ratio`."""
        return self.ratio

    def to_dict(self) -> dict[str, Any]:
        """The numbers, also the computed ones."""
        return {
            "original_bytes": self.original_bytes,
            "delta_bytes": self.delta_bytes,
            "reduction_bytes": self.reduction_bytes,
            "ratio": self.ratio,
            "compression_ratio": self.compression_ratio,
            "duration_ms": self.duration_ms,
        }


def compute_delta(base: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """What turns `base` into `current`: keys to ``set`` and keys to ``remove``.

    A value that changed anywhere inside is there as a whole. Equal mappings
    have an empty delta.

    Raises:
      InvalidDeltaError: if one of them is no mapping.
    """
    _require_mapping("base", base)
    _require_mapping("current", current)
    changed = {
        key: value
        for key, value in current.items()
        if key not in base or not _is_unchanged(base[key], value)
    }
    removed = [key for key in base if key not in current]
    return ({"set": changed} if changed else {}) | ({"remove": removed} if removed else {})


def apply_delta(base: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping that `delta` makes of `base`; both stay as they are.

    Raises:
      InvalidDeltaError: if `base` is no mapping or `delta` no delta.
    """
    _require_mapping("base", base)
    _require_mapping("delta", delta)
    unknown = sorted(map(str, delta.keys() - {"set", "remove"}))
    if unknown:
        raise InvalidDeltaError("delta", unknown, "without keys other than 'set' and 'remove'")
    changed, removed = delta.get("set", {}), delta.get("remove", [])
    _require_mapping("delta.set", changed)
    if not isinstance(removed, (list, tuple)) or not all(isinstance(key, str) for key in removed):
        raise InvalidDeltaError("delta.remove", removed, "a list of strings")
    current = dict(base)
    for key in removed:
        current.pop(key, None)
    current.update(changed)
    return current


def compress(
    base: Mapping[str, Any], current: Mapping[str, Any]
) -> tuple[dict[str, Any], CompressionMetrics]:
    """The delta that turns `base` into `current`, and what it saves."""
    started = clock.monotonic()
    delta = compute_delta(base, current)
    original_bytes, delta_bytes = json_size(dict(current)), json_size(delta)
    duration_ms = (clock.monotonic() - started) * 1000
    return delta, CompressionMetrics(original_bytes, delta_bytes, duration_ms)


def _require_mapping(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise InvalidDeltaError(name, value, "a mapping")


# Whether something changed


def _is_unchanged(before: Any, after: Any) -> bool:
    # Values of any class are compared here, by code of any kind.
    try:
        differs = before != after
        return differs is False and _is_same_json(before, after)
    except Exception:  # noqa: BLE001 - what cannot be compared counts as changed
        return False


def _is_same_json(before: Any, after: Any) -> bool:
    """Whether two equal values are written alike: 1, 1.0 and True are not."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return _odd_keys(before) == _odd_keys(after) and all(
            _is_same_json(value, after[key]) for key, value in before.items()
        )
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        return all(map(_is_same_json, before, after))
    # The text tells -0.0 from 0.0.
    kind = _number_kind(before)
    return kind is _number_kind(after) and (kind is None or str(before) == str(after))


def _odd_keys(mapping: Mapping[Any, Any]) -> set[str]:
    return {str(key) for key in mapping if not isinstance(key, str)}


def _number_kind(value: object) -> type | None:
    return next((kind for kind in (bool, int, float) if isinstance(value, kind)), None)


# How much JSON it is


def json_size(value: object) -> int:
    """How many bytes `value` has as JSON; what JSON cannot hold counts as its text."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except TypeError:
        # Keys that are neither text nor number; `default` is not asked for keys.
        text = json.dumps(_with_text_keys(value), ensure_ascii=False, default=str)
    return len(text.encode(errors="surrogatepass"))


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_text_keys(item) for item in value]
    return value
