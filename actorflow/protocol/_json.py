"""JSON objects from frames of strangers, and messages from objects."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, Never, TypeVar

from actorflow.codec import make_converter
from actorflow.errors import ProtocolViolationError, WireFormatError

from ._codes import CloseCode, ErrorCode

M = TypeVar("M")

_converter: Final = make_converter()


def check_size(frame: str | bytes, limit: int) -> None:
    """Refuse what is longer than `limit` bytes."""
    # The length in characters is the lower bound that costs nothing.
    if len(frame) > limit or (isinstance(frame, str) and _byte_count(frame) > limit):
        raise ProtocolViolationError(
            f"a message of more than {limit} bytes", CloseCode.TOO_BIG, ErrorCode.TOO_BIG
        )


def _byte_count(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object that `text` is.

    Raises:
      ProtocolViolationError: if it is something else, or holds numbers or
        characters that could not be written again.
    """
    # Deep nesting ends in RecursionError, thousands of digits in ValueError.
    try:
        found = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        text.encode("utf-8")
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ProtocolViolationError(
            f"a text frame that is no JSON ({type(error).__name__})", CloseCode.BAD_DATA
        ) from error
    if not isinstance(found, dict):
        raise ProtocolViolationError("a text frame that is no JSON object")
    return found


def _refuse_constant(name: str) -> Never:
    raise ValueError(name)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


def message_from(kinds: Mapping[str, type[M]], data: Mapping[str, Any]) -> M:
    """The message that `data` describes; keys that it does not know are ignored."""
    kind = kinds.get(name) if isinstance(name := data.get("type"), str) else None
    if kind is None:
        raise ProtocolViolationError("a message of an unknown type")
    return read_as(kind, data, kind.type)  # type: ignore[attr-defined]


def read_as(kind: type[M], data: object, name: str) -> M:
    """`data` as a `kind`, which `name` is for people."""
    try:
        return _converter.structure(data, kind)
    except WireFormatError as error:
        # What was found is the user's; it stays out of messages and logs. So do keys
        # below the fields, and exceptions that nobody foresaw, since they may quote it.
        place = re.split(r"[.\[]", error.path)[0] or "content"
        expected = "valid" if error.expected.startswith("readable (") else error.expected
        is_audio = name == "start" and place == "audio"
        raise ProtocolViolationError(
            f"a message {name!r} whose {place} is not {expected}",
            error_code=ErrorCode.AUDIO_FORMAT if is_audio else ErrorCode.PROTOCOL,
        ) from None


def write_object(message: Any, **more: object) -> str:
    """`message` as one line of JSON, `type` first, without the fields that are None."""
    fields = {
        key: value for key, value in _converter.unstructure(message).items() if value is not None
    }
    return json.dumps({"type": message.type, **more, **fields}, separators=(",", ":"))
