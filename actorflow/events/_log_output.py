"""Where log entries go, for programs that leave it to us: one call, and never at import."""

from __future__ import annotations

import logging
import sys
from datetime import datetime, timezone
from os import PathLike
from typing import Final, final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# What the last call has set up, so that the next one can take exactly that away.
_handlers: Final[list[logging.Handler]] = []


def _add_time(_: WrappedLogger, __: str, entry: EventDict) -> EventDict:
    record: logging.LogRecord = entry["_record"]
    moment = datetime.fromtimestamp(record.created, timezone.utc)
    entry["timestamp"] = moment.isoformat(timespec="microseconds")
    return entry


# Entries of structlog and plain records alike get these before they are written.
_ENTRIES: Final[tuple[Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
)


@final
class JsonLogFormatter(structlog.stdlib.ProcessorFormatter):
    """Writes a record as one line of JSON.

    The line has `timestamp`, `level`, `logger` and `message`, the fields of
    `extra`, what is bound to structlog's context variables, and `exception`.
    """

    def __init__(self) -> None:
        super().__init__(
            foreign_pre_chain=[*_ENTRIES, structlog.stdlib.ExtraAdder()],
            processors=[
                _add_time,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.EventRenamer("message"),
                structlog.processors.JSONRenderer(),
            ],
        )


def _for_people(_: WrappedLogger, __: str, entry: EventDict) -> EventDict:
    # The hour by the clock on the wall, and no word about what there is not.
    record: logging.LogRecord = entry["_record"]
    entry["timestamp"] = (
        datetime.fromtimestamp(record.created, timezone.utc)
        .astimezone()
        .strftime("%H:%M:%S.%f")[:-3]
    )
    return {key: value for key, value in entry.items() if value is not None}


def _console_formatter(*, colorize: bool) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_ENTRIES, structlog.stdlib.ExtraAdder()],
        processors=[
            _for_people,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            # With rich installed it would show local variables, and so the data of users.
            structlog.dev.ConsoleRenderer(
                colors=colorize, exception_formatter=structlog.dev.plain_traceback
            ),
        ],
    )


def setup_logging(
    *,
    verbose: bool = False,
    json_format: bool = False,
    log_file: str | PathLike[str] | None = None,
) -> None:
    """Write log entries to stderr, readable or as JSON, and to a file as JSON.

    Entries of structlog and of the standard library come out alike, with the
    ids of the run and the stage they were written in. What is worth less than
    `info` is not written. Calling again replaces what was set up before; handlers
    of others, and a structlog that somebody has configured, are left alone.

    Args:
      verbose: also write what actorflow logs for debugging.
      json_format: write JSON to stderr too.
      log_file: a file to append to.
    """
    root = logging.getLogger()
    while _handlers:
        handler = _handlers.pop()
        root.removeHandler(handler)
        handler.close()
    console = logging.StreamHandler(sys.stderr)
    is_terminal = sys.stderr.isatty()
    console.setFormatter(
        JsonLogFormatter() if json_format else _console_formatter(colorize=is_terminal)
    )
    _handlers.append(console)
    if log_file is not None:
        file = logging.FileHandler(log_file, encoding="utf-8")
        file.setFormatter(JsonLogFormatter())
        _handlers.append(file)
    for handler in _handlers:
        root.addHandler(handler)
    # Or else the entries of a program would be thrown away, because by default it warns only.
    root.setLevel(min(root.level, logging.INFO))
    logging.getLogger("actorflow").setLevel(logging.DEBUG if verbose else logging.INFO)
    if not structlog.is_configured():
        structlog.configure(
            processors=[*_ENTRIES, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
        )
