from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from actorflow import clock
from actorflow.errors import InvalidArgumentError, InvalidEventSinkError, InvalidTypeError
from actorflow.events import BoundEventSink, EventCounter, NoOpEventSink, bound_sink, report
from actorflow.events._now import iso_now
from actorflow.testing import Fails, Hangs, Lags, RecordingEventSink, faulty

RUN = UUID("0197a000-0000-7000-8000-000000000001")


class Refusing:
    """Accepts every other event."""

    def __init__(self) -> None:
        self.accepted: list[Mapping[str, Any]] = []
        self.calls = 0

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        self.try_emit(type=type, data=data)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        self.calls += 1
        if self.calls % 2 == 0:
            return False
        assert data is not None
        self.accepted.append(data)
        return True


class Picky:
    """Takes only what begins with `stage.`; fails when it is handed anything else."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def takes(self, type: str) -> bool:
        return type.startswith("stage.")

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        self.try_emit(type=type, data=data)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        assert self.takes(type)
        self.taken.append(type)


@pytest.mark.spec("E8")
async def test_event_carries_the_common_keys_of_its_run(autojump_clock: MockClock) -> None:
    recorded = RecordingEventSink()
    sink = BoundEventSink(recorded, pipeline_run_id=RUN, request_id="r-1", execution_mode="strict")
    await trio.sleep(60)

    sink.try_emit(type="order.placed", data={"amount": 3})

    assert recorded.payloads("order.placed") == [
        {
            "pipeline_run_id": str(RUN),
            "request_id": "r-1",
            "execution_mode": "strict",
            "seq": 1,
            "timestamp": clock.now().isoformat(timespec="microseconds"),
            "amount": 3,
        }
    ]


@pytest.mark.spec("E8")
@given(st.floats(0, 4e9), st.lists(st.floats(0, 3), max_size=5))
@settings(max_examples=100)
def test_timestamp_is_the_time_of_the_clock(at: float, pauses: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        for pause in [0.0, *pauses]:
            at += pause
            patched.setattr(clock, "timestamp", partial(float, at))

            assert iso_now() == clock.now().isoformat(timespec="microseconds")


@pytest.mark.spec("E8")
def test_last_microsecond_of_a_second_belongs_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "timestamp", lambda: 59.9999999)

    assert iso_now() == "1970-01-01T00:01:00.000000+00:00"


@pytest.mark.spec("E8")
def test_unknown_ids_are_null_outside_a_trio_loop() -> None:
    recorded = RecordingEventSink()

    BoundEventSink(recorded).try_emit(type="order.placed", data=None)

    payload = recorded.assert_emitted("order.placed", seq=1)
    assert payload["pipeline_run_id"] is payload["request_id"] is payload["execution_mode"] is None
    assert payload["timestamp"].endswith("+00:00")


@pytest.mark.spec("E8", "10.10.3")
def test_payload_is_a_copy_of_the_callers_mapping() -> None:
    recorded = RecordingEventSink()
    data = {"amount": 3}

    BoundEventSink(recorded).try_emit(type="order.placed", data=data)
    data["amount"] = 4

    assert recorded.assert_emitted("order.placed")["amount"] == 3
    assert data == {"amount": 4}


@pytest.mark.spec("E9", "10.10.1")
def test_topology_and_stage_are_added_where_known() -> None:
    recorded = RecordingEventSink()
    run = BoundEventSink(recorded, topology="chat_fast")

    run.try_emit(type="a", data=None)
    run.for_stage("llm").try_emit(type="b", data=None)
    BoundEventSink(recorded).try_emit(type="c", data=None)

    assert recorded.assert_emitted("a", topology="chat_fast").get("stage") is None
    assert recorded.assert_emitted("b", topology="chat_fast", stage="llm")["seq"] == 2
    assert not {"topology", "stage"} & recorded.assert_emitted("c").keys()


@pytest.mark.spec("E9", "10.10.2")
def test_callers_keys_win_except_seq() -> None:
    recorded = RecordingEventSink()
    sink = BoundEventSink(recorded, pipeline_run_id=RUN, topology="chat").for_stage("llm")

    sink.try_emit(
        type="a",
        data={"pipeline_run_id": "other", "topology": "mine", "stage": "tts", "seq": 99},
    )

    recorded.assert_emitted(
        "a", pipeline_run_id="other", topology="mine", stage="tts", seq=1, payload_seq=99
    )


@pytest.mark.spec("E10", "10.10.6")
@given(st.lists(st.sampled_from(["run", "stage", "emit"]), max_size=30), st.integers(1, 1000))
@settings(max_examples=50, deadline=None)
def test_numbers_grow_by_one_over_run_and_stages(emissions: list[str], first_seq: int) -> None:
    recorded = RecordingEventSink()

    async def emit_all() -> int:
        run = BoundEventSink(recorded, pipeline_run_id=RUN, first_seq=first_seq)
        stage = run.for_stage("llm")
        for emission in emissions:
            if emission == "emit":
                await run.emit(type="a", data=None)
            else:
                (run if emission == "run" else stage).try_emit(type="a", data=None)
        assert run.last_seq == stage.last_seq
        return run.last_seq

    assert trio.run(emit_all) == first_seq + len(emissions) - 1
    numbers = [event.data["seq"] for event in recorded.events]
    assert numbers == list(range(first_seq, first_seq + len(emissions)))


@pytest.mark.spec("E10")
def test_refused_event_leaves_a_gap_and_nothing_else_does() -> None:
    refusing = Refusing()
    sink = BoundEventSink(refusing)

    answers = [sink.try_emit(type="a", data=None) for _ in range(5)]

    assert answers == [True, False, True, False, True]
    assert [payload["seq"] for payload in refusing.accepted] == [1, 3, 5]


@pytest.mark.spec("E11")
async def test_stamping_and_handing_over_is_one_step() -> None:
    # A sink that counts how often anybody else ran since the stamp was made.
    ticks = 0
    seen: list[int] = []

    class Watching:
        async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
            seen.append(ticks)
            await trio.lowlevel.checkpoint()

        def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> None: ...

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        await trio.lowlevel.checkpoint()
        sink = BoundEventSink(Watching())
        for _ in range(5):
            before = ticks
            await sink.emit(type="a", data=None)
            assert seen[-1] == before
        nursery.cancel_scope.cancel()


@pytest.mark.spec("E14")
@pytest.mark.made_up_payloads
async def test_emission_that_waits_too_long_is_given_up_and_reported(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    sink = BoundEventSink(
        faulty(RecordingEventSink(), emit=Hangs()), pipeline_run_id=RUN, emit_timeout=2.0
    )
    start = trio.current_time()

    await sink.for_stage("llm").emit(type="pipeline.started", data=None)

    assert trio.current_time() - start == 2.0
    assert sink.undelivered == 1
    (record,) = caplog.records
    assert (record.levelname, record.message) == ("ERROR", "event_undelivered")
    assert (
        record.__dict__.items()
        >= {
            "event_type": "pipeline.started",
            "pipeline_run_id": str(RUN),
            "seq": 1,
            "timeout": 2.0,
        }.items()
    )


@pytest.mark.spec("E14")
async def test_emission_waits_for_room_while_there_is_time(autojump_clock: MockClock) -> None:
    recorded = RecordingEventSink()
    sink = BoundEventSink(faulty(recorded, emit=Lags(4.9)))

    await sink.emit(type="a", data=None)

    assert recorded.types() == ["a"]
    assert sink.undelivered == 0


@pytest.mark.spec("E15")
@pytest.mark.made_up_payloads
async def test_emission_of_a_cancelled_run_arrives(autojump_clock: MockClock) -> None:
    recorded = RecordingEventSink()
    sink = BoundEventSink(faulty(recorded, emit=Lags(1)))

    with trio.CancelScope() as scope:
        scope.cancel()
        await sink.emit(type="pipeline.canceled", data=None)

    assert recorded.types() == ["pipeline.canceled"]


@pytest.mark.spec("E15")
async def test_cancel_during_an_emission_does_not_lose_it(autojump_clock: MockClock) -> None:
    recorded = RecordingEventSink()
    sink = BoundEventSink(faulty(recorded, emit=Lags(1)))

    with trio.move_on_after(0.5) as scope:
        await sink.emit(type="tool.completed", data=None)
        await trio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    assert recorded.types() == ["tool.completed"]


@pytest.mark.spec("E16", "10.10.4")
@pytest.mark.parametrize("error", [ValueError("full"), ExceptionGroup("both", [OSError("x")])])
async def test_exception_of_a_sink_is_logged_and_goes_no_further(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    sink = BoundEventSink(faulty(RecordingEventSink(), emit=Fails(error), try_emit=Fails(error)))

    assert sink.try_emit(type="a", data=None) is False
    await sink.emit(type="b", data=None)

    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("WARNING", "event_emit_failed")
    ] * 2
    assert [r.__dict__["event_type"] for r in caplog.records] == ["a", "b"]
    assert caplog.records[0].__dict__["error"] == repr(error)


@pytest.mark.spec("E16", "10.10.4")
async def test_keyboard_interrupt_of_a_sink_passes() -> None:
    stop = Fails(KeyboardInterrupt)
    sink = BoundEventSink(faulty(RecordingEventSink(), emit=stop, try_emit=stop))

    with pytest.raises(KeyboardInterrupt):
        sink.try_emit(type="a", data=None)
    with pytest.raises(KeyboardInterrupt):
        await sink.emit(type="a", data=None)


@pytest.mark.spec("E16", "10.10.4")
async def test_cancelled_of_a_sink_passes() -> None:
    # A scope inside the shield, as a sink's own: only its Cancelled can come out.
    class Stopping:
        async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
            inside.cancel()
            await trio.lowlevel.checkpoint()

        def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> None: ...

    sink = BoundEventSink(Stopping(), emit_timeout=math.inf)
    with trio.CancelScope() as inside:
        await sink.emit(type="a", data=None)
        with pytest.raises(trio.Cancelled):
            await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()

    assert inside.cancelled_caught


@pytest.mark.spec("E6")
@pytest.mark.parametrize("type", ["", None, 3])
async def test_type_of_an_event_is_a_name(type: Any) -> None:
    for sink in (BoundEventSink(RecordingEventSink()), BoundEventSink(NoOpEventSink())):
        with pytest.raises(InvalidTypeError, match="type must be the name of an event"):
            sink.try_emit(type=type, data=None)
        with pytest.raises(InvalidTypeError):
            await sink.emit(type=type, data=None)
        assert sink.last_seq == 0


@pytest.mark.spec("E6")
@pytest.mark.made_up_payloads
def test_name_in_a_reserved_family_is_delivered_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorded = RecordingEventSink()
    sink = BoundEventSink(recorded)

    for type in ("stage.danced", "stage.danced", "order.placed", "stage", "stage.started"):
        sink.try_emit(type=type, data=None)

    assert len(recorded.events) == 5
    assert [(r.levelname, r.message, r.__dict__["event_type"]) for r in caplog.records] == [
        ("WARNING", "event_type_reserved", "stage.danced")
    ]


@pytest.mark.made_up_payloads
async def test_nothing_is_stamped_for_an_event_nobody_takes() -> None:
    picky = Picky()
    sink = BoundEventSink(picky)

    sink.try_emit(type="order.placed", data=None)
    await sink.emit(type="order.placed", data=None)
    sink.try_emit(type="stage.started", data=None)

    assert picky.taken == ["stage.started"]
    assert sink.last_seq == 3
    assert [sink.takes(type) for type in ("order.placed", "stage.started")] == [False, True]
    assert BoundEventSink(RecordingEventSink()).takes("order.placed")


def test_what_is_no_sink_cannot_be_bound() -> None:
    with pytest.raises(InvalidEventSinkError, match="it lacks emit and try_emit"):
        BoundEventSink(print)  # type: ignore[arg-type] # the mistake under test


@pytest.mark.parametrize("timeout", [-0.1, math.nan])
def test_time_to_wait_is_not_negative(timeout: float) -> None:
    with pytest.raises(InvalidArgumentError, match="emit_timeout"):
        BoundEventSink(NoOpEventSink(), emit_timeout=timeout)


# What contexts build their `try_emit_event` on


@pytest.mark.spec("E21", "10.10.6")
def test_context_in_a_run_reports_on_the_counter_of_the_run() -> None:
    recorded = RecordingEventSink()
    run = BoundEventSink(recorded, pipeline_run_id=RUN)

    of_context = bound_sink(
        run, pipeline_run_id=None, request_id=None, execution_mode=None, counter=EventCounter()
    )
    report(of_context, "a", {"amount": 3})

    assert of_context is run
    assert run.sink is recorded
    recorded.assert_emitted("a", pipeline_run_id=str(RUN), seq=1, amount=3)


@pytest.mark.spec("E20", "E21", "10.10.6")
def test_context_outside_a_run_counts_on_its_own() -> None:
    recorded = RecordingEventSink()
    counter = EventCounter()

    for mode in ("first", "second"):
        of_context = bound_sink(
            recorded, pipeline_run_id=RUN, request_id=None, execution_mode=mode, counter=counter
        )
        report(of_context, "a", None)
    recorded.try_emit(type="plain", data={"own": 1})

    assert [(p["execution_mode"], p["seq"]) for p in recorded.payloads("a")] == [
        ("first", 1),
        ("second", 2),
    ]
    assert recorded.payloads("plain") == [{"own": 1}]


@pytest.mark.spec("E21", "10.10.5")
def test_context_without_a_sink_writes_a_debug_record(caplog: pytest.LogCaptureFixture) -> None:
    nothing = bound_sink(
        None, pipeline_run_id=RUN, request_id=None, execution_mode=None, counter=EventCounter()
    )

    with caplog.at_level(logging.DEBUG, "actorflow.events"):
        report(nothing, "a", None)

    assert [(r.levelname, r.message, r.__dict__["event_type"]) for r in caplog.records] == [
        ("DEBUG", "event_not_emitted", "a")
    ]
    with pytest.raises(InvalidTypeError):
        report(nothing, "", None)


@pytest.mark.spec("E10", "E18")
def test_sink_of_another_run_is_not_stamped_through() -> None:
    recorded = RecordingEventSink(strict=True)
    outer = BoundEventSink(recorded, pipeline_run_id="outer", topology="t").for_stage("s")
    inner = BoundEventSink(outer, pipeline_run_id="inner")

    for sink in (outer, inner, outer, inner):
        sink.try_emit(type="order.placed", data=None)

    recorded.assert_seq_contiguous("outer")
    recorded.assert_seq_contiguous("inner")
    assert inner.sink is recorded
    assert "stage" not in recorded.events[1].data
    assert "payload_seq" not in recorded.events[1].data


@pytest.mark.spec("E10", "E16")
def test_sink_that_raises_when_asked_misses_the_event(caplog: pytest.LogCaptureFixture) -> None:
    class Moody:
        is_well = False

        def takes(self, type: str) -> bool:
            if not self.is_well:
                raise OSError(type)
            return True

        async def emit(self, **_: Any) -> None: ...

        def try_emit(self, **_: Any) -> None: ...

    moody = Moody()
    sink = BoundEventSink(moody)

    assert not sink.wants("order.placed")
    moody.is_well = True
    assert sink.wants("order.placed")

    # Its number is used up, so that the gap can be seen.
    assert sink.last_seq == 1
    assert [record.message for record in caplog.records] == ["event_emit_failed"]


@pytest.mark.spec("E14")
async def test_without_patience_a_full_sink_is_given_up_at_once(autojump_clock: MockClock) -> None:
    class Full:
        async def emit(self, **_: Any) -> None:
            await trio.sleep_forever()

        def try_emit(self, **_: Any) -> bool:
            return False

    sink = BoundEventSink(Full(), emit_timeout=0)
    start = trio.current_time()

    await sink.emit(type="a", data=None)

    assert (sink.undelivered, trio.current_time()) == (1, start)
