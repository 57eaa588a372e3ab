"""Values as JSON and back, canonical JSON, and checksums."""

from __future__ import annotations

from ._canonical import (
    canonical_json as canonical_json,
    checksum as checksum,
    parse_json as parse_json,
)
from ._convert import (
    Configure as Configure,
    Default as Default,
    JsonConverter as JsonConverter,
    Reader as Reader,
    Writer as Writer,
    fields_reader as fields_reader,
    fields_writer as fields_writer,
    join_path as join_path,
    make_converter as make_converter,
)
