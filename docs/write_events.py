"""Write the catalogue in `docs/reference/events.md`: `python -m docs.write_events`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from actorflow.events import (
    CATALOGUE,
    Delivery,
    EventSpec,
    PayloadKey,
    StageSummary,
    payload_keys,
)

PAGE: Final = Path(__file__).parent / "reference" / "events.md"

MARK: Final = (
    "<!-- From here on written by `python -m docs.write_events`; change the payload classes in\n"
    "actorflow/events/ instead. -->\n"
)

DELIVERY: Final = {
    Delivery.WAIT: "Waits for room",
    Delivery.TRY: "Never waits",
}


def page() -> str:
    """The page as it should be: the part above the mark, and the catalogue."""
    by_hand = PAGE.read_text("utf-8").partition(MARK)[0]
    return "\n".join([by_hand + MARK, *_catalogue()])


def _catalogue() -> Iterator[str]:
    for family, specs in groupby(CATALOGUE.values(), key=lambda spec: spec.type.split(".")[0]):
        yield f"### {family}\n"
        yield from map(_event, specs)
    yield "### Parts of payloads\n"
    yield f"#### {StageSummary.__name__}\n"
    yield f"`{StageSummary.__name__}`: {StageSummary.__doc__}\n"
    yield _table(payload_keys(StageSummary))


def _event(spec: EventSpec) -> str:
    delivery = f"{DELIVERY[spec.delivery]}. Payload: `{spec.payload.__name__}`."
    return "\n".join([
        f"#### {spec.type}\n",
        f"{spec.doc} {delivery}\n",
        _table(spec.keys),
    ])  # fmt: skip


def _table(keys: tuple[PayloadKey, ...]) -> str:
    return "\n".join(["| key | type | |", "|---|---|---|", *map(_row, keys), ""])


def _row(key: PayloadKey) -> str:
    presence = [] if key.required else ["only when it has a meaning"]
    return f"| `{key.name}` | {key.type} | {'; '.join([*presence, *filter(None, [key.note])])} |"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
