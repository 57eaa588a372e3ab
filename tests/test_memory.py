"""What is remembered of a session, where, and by which stages."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import attrs
import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from actorflow import clock
from actorflow.errors import FrozenValueError, InvalidMemoryError, UndeclaredDependencyError
from actorflow.memory import (
    Change,
    InMemoryStore,
    MemoryConfig,
    MemoryEntry,
    MemoryFetchStage,
    MemoryStore,
    MemoryWriteStage,
    StoreMemory,
    estimate_tokens,
    exchange,
    recall,
    trimmed,
    write_entries,
)
from actorflow.model import ContextSnapshot, RunIdentity, StageKind, StageOutput, StageStatus
from actorflow.pipeline import Pipeline, stage
from actorflow.stages import IssueSeverity, StageContext, StageInputs, create_stage_context
from actorflow.testing import check_memory_store, run_seeded

SESSION = UUID(int=1)
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
EVERYTHING = MemoryConfig(max_entries=0, max_tokens=0)


def entry(content: str, role: str = "user", session: UUID = SESSION, **fields: Any) -> MemoryEntry:
    return MemoryEntry(f"id-{content}", session, role, content, **fields)


class Texts:
    """A store of texts that takes its time; between looking and changing it lets nobody in."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.updates: list[tuple[str, float | None]] = []
        self._lock = trio.Lock()

    async def get(self, key: str) -> str | None:
        await trio.lowlevel.checkpoint()
        return self.texts.get(key)

    async def update(self, key: str, change: Change, *, ttl_seconds: float | None = None) -> None:
        async with self._lock:
            # As a store does that finds out late that somebody else was faster.
            change("[]")
            text = change(self.texts.get(key))
            await trio.sleep(0.01)
            self.updates.append((key, ttl_seconds))
            self.texts.pop(key, None)
            if text is not None:
                self.texts[key] = text


class OneByOne:
    """A store that has nothing but the three methods."""

    def __init__(self, limit: int) -> None:
        self.kept = InMemoryStore(max_entries_per_session=limit)
        self.writes = 0

    async def fetch(self, session_id: UUID, config: MemoryConfig) -> list[MemoryEntry]:
        return await self.kept.fetch(session_id, config)

    async def write(self, entry: MemoryEntry) -> None:
        self.writes += 1
        await self.kept.write(entry)

    async def clear(self, session_id: UUID) -> int:
        return await self.kept.clear(session_id)


# Entries and limits


@pytest.mark.spec("A72")
def test_entry_is_of_now_and_cannot_be_changed() -> None:
    with clock.starting_at(NOON.timestamp()):
        said = entry("hi", metadata={"tags": ["a"]})

    assert said.timestamp == NOON
    assert said.timestamp.tzinfo is timezone.utc
    with pytest.raises(FrozenValueError):
        said.metadata["more"] = 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        said.content = "ho"  # type: ignore[misc]


@pytest.mark.spec("A72")
def test_time_of_an_entry_is_kept_in_utc() -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=2)))

    assert entry("hi", timestamp=elsewhere).to_dict()["timestamp"] == "2026-01-01T12:00:00+00:00"


@pytest.mark.spec("A72")
def test_entry_as_json() -> None:
    said = entry("hi", timestamp=NOON, metadata={"a": [1]})

    assert list(said.to_dict().items()) == [
        ("id", "id-hi"),
        ("session_id", str(SESSION)),
        ("role", "user"),
        ("content", "hi"),
        ("timestamp", "2026-01-01T12:00:00+00:00"),
        ("metadata", {"a": [1]}),
    ]
    assert type(said.to_dict()["metadata"]) is dict


@pytest.mark.spec("A72")
@given(
    st.builds(
        MemoryEntry,
        id=st.text(min_size=1),
        session_id=st.uuids(),
        role=st.text(min_size=1),
        content=st.text(),
        timestamp=st.datetimes(timezones=st.timezones()).filter(
            lambda it: 1 < it.year < 9999 and it.utcoffset() is not None
        ),
        metadata=st.dictionaries(st.text(), st.integers() | st.text()),
    )
)
def test_entry_comes_back_from_json_as_it_was(said: MemoryEntry) -> None:
    assert MemoryEntry.from_dict(json.loads(json.dumps(said.to_dict()))) == said


@pytest.mark.spec("A73")
def test_limits_have_defaults_and_tokens_are_estimated() -> None:
    assert MemoryConfig() == MemoryConfig(20, 4000, True, 0)
    assert [estimate_tokens("x" * size) for size in (0, 3, 4, 9)] == [0, 0, 1, 2]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        MemoryConfig().max_entries = 1  # type: ignore[misc]


ages = st.integers(0, 100)
said_before = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=12), ages),
    max_size=15,
)


@pytest.mark.spec("A73", "A74")
@given(
    said=said_before,
    max_entries=st.integers(0, 8),
    max_tokens=st.integers(0, 10),
    include_system=st.booleans(),
    window=st.sampled_from([0, 1, 50, 100]),
)
def test_recalled_is_the_newest_that_all_limits_allow(
    said: list[tuple[str, str, int]],
    max_entries: int,
    max_tokens: int,
    include_system: bool,
    window: int,
) -> None:
    entries = [
        MemoryEntry(f"{number}", SESSION, role, content, NOON - timedelta(seconds=age))
        for number, (role, content, age) in enumerate(said)
    ]
    config = MemoryConfig(max_entries, max_tokens, include_system, window)
    recalled = recall(entries, config, NOON.timestamp())

    allowed = [
        it
        for it in entries
        if (not window or (NOON - it.timestamp).total_seconds() < window)
        and (include_system or it.role != "system")
    ]
    if max_entries:
        allowed = allowed[-max_entries:]
    # They are the end of what is allowed, and not one more would fit.
    assert recalled == allowed[len(allowed) - len(recalled) :]
    tokens = sum(len(it.content) // 4 for it in recalled)
    if max_tokens:
        assert tokens <= max_tokens
        if len(recalled) < len(allowed):
            next_one = allowed[len(allowed) - len(recalled) - 1]
            assert tokens + len(next_one.content) // 4 > max_tokens
    else:
        assert recalled == allowed


@pytest.mark.spec("A74")
def test_entry_as_old_as_the_window_is_too_old() -> None:
    old = entry("old", timestamp=NOON - timedelta(seconds=10))
    config = MemoryConfig(recency_window_seconds=10)

    assert recall([old], config, NOON.timestamp()) == []
    assert recall([old], config, NOON.timestamp() - 0.5) == [old]


@pytest.mark.spec("A76")
@given(st.lists(st.sampled_from(["system", "user"]), max_size=12), st.integers(1, 6))
def test_trimmed_loses_the_oldest_and_the_systems_last(roles: list[str], limit: int) -> None:
    entries = [entry(str(number), role) for number, role in enumerate(roles)]
    kept = trimmed(entries, limit)
    lost = [it for it in entries if it not in kept]

    assert len(kept) == min(len(entries), limit)
    assert kept == [it for it in entries if it in kept]
    if any(it.role == "system" for it in lost):
        assert all(it.role == "system" for it in kept)
    for role in ("system", "user"):
        order = [it for it in entries if it.role == role]
        gone = [it for it in lost if it.role == role]
        assert gone == order[: len(gone)]


# Stores


@pytest.mark.spec("A74", "A75", "A76", "A77")
@pytest.mark.parametrize(
    "make",
    [
        lambda limit: InMemoryStore(max_entries_per_session=limit),
        lambda limit: StoreMemory(Texts(), max_entries_per_session=limit),
        OneByOne,
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_store_does_what_stores_do(make: Callable[[int], MemoryStore], seed: int) -> None:
    run_seeded(check_memory_store, make, seed=seed)


@pytest.mark.spec("A77")
@pytest.mark.parametrize("fault", ["shares", "forgets", "mixes", "unbounded", "reorders"])
def test_suite_finds_what_a_store_does_wrong(fault: str) -> None:
    class Faulty:
        def __init__(self, limit: int) -> None:
            self._limit = limit
            self._entries: dict[UUID, list[MemoryEntry]] = {}

        async def fetch(self, session_id: UUID, config: MemoryConfig) -> list[MemoryEntry]:
            entries = self._entries.setdefault(session_id, [])
            if fault == "shares" and config == EVERYTHING:
                return entries
            return recall(entries, config, clock.timestamp())

        async def write(self, entry: MemoryEntry) -> None:
            if fault == "reorders":
                await trio.sleep(0.1 if entry.content.endswith("0") else 0)
            session = SESSION if fault == "mixes" else entry.session_id
            entries = [*self._entries.get(session, []), entry]
            if fault == "forgets":
                await trio.lowlevel.checkpoint()
            limit = 10_000 if fault == "unbounded" else self._limit
            self._entries[session] = trimmed(entries, limit)
            if fault == "reorders" and len(entries) == 30:
                self._entries[session].reverse()

        async def clear(self, session_id: UUID) -> int:
            return len(self._entries.pop(session_id, []))

    with pytest.raises((AssertionError, ExceptionGroup)):
        run_seeded(check_memory_store, Faulty)


@pytest.mark.spec("A75")
async def test_sessions_are_listed() -> None:
    store = InMemoryStore()
    for number in (3, 1, 2):
        await store.write(entry("x", session=UUID(int=number)))
    await store.clear(UUID(int=1))

    assert set(store.get_all_sessions()) == {UUID(int=3), UUID(int=2)}


@pytest.mark.spec("A75")
@pytest.mark.parametrize("store", [InMemoryStore(), StoreMemory(Texts())])
async def test_session_may_be_named_by_the_text_of_its_id(
    store: InMemoryStore | StoreMemory, autojump_clock: MockClock
) -> None:
    await store.write(entry("x"))

    assert len(await store.fetch(str(SESSION), EVERYTHING)) == 1
    assert await store.clear(str(SESSION)) == 1
    with pytest.raises(InvalidMemoryError, match="session_id"):
        await store.fetch("nobody", EVERYTHING)


@pytest.mark.spec("A76")
async def test_writes_are_in_the_order_of_the_calls() -> None:
    store = InMemoryStore()
    async with trio.open_nursery() as nursery:
        called: list[str] = []

        async def write(name: str) -> None:
            called.append(name)
            await store.write(entry(name))

        for name in "abcdef":
            nursery.start_soon(write, name)

    assert [it.content for it in await store.fetch(SESSION, EVERYTHING)] == called


@pytest.mark.spec("A76")
async def test_session_unused_for_longest_goes_first(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "actorflow.memory")
    store = InMemoryStore(max_sessions=2)
    for number in (1, 2):
        await store.write(entry("secret", session=UUID(int=number)))
    await store.fetch(UUID(int=1), EVERYTHING)
    await store.write(entry("secret", session=UUID(int=3)))

    assert store.get_all_sessions() == [UUID(int=1), UUID(int=3)]
    (record,) = caplog.records
    assert record.getMessage() == "memory_session_evicted"
    assert vars(record)["session_id"] == str(UUID(int=2))
    assert "secret" not in str(vars(record))


@pytest.mark.spec("A76", "A80")
@pytest.mark.parametrize("cancel_at", range(1, 6))
async def test_cancelled_write_is_all_there_or_not_at_all(cancel_at: int) -> None:
    store = InMemoryStore()

    class CancelAt(trio.abc.Instrument):
        steps = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.steps += 1
            if self.steps == cancel_at:
                scope.cancel()

    written = False
    instrument = CancelAt()
    trio.lowlevel.add_instrument(instrument)
    with trio.CancelScope() as scope:
        await trio.lowlevel.checkpoint()
        await store.write_all([entry("a"), entry("b")])
        written = True
    trio.lowlevel.remove_instrument(instrument)

    found = [it.content for it in await store.fetch(SESSION, EVERYTHING)]
    assert found == (["a", "b"] if written else [])


@pytest.mark.spec("A77")
async def test_time_to_live_and_key_are_handed_to_the_store(autojump_clock: MockClock) -> None:
    texts = Texts()
    await StoreMemory(texts, ttl_seconds=60).write(entry("hi"))

    assert texts.updates == [(f"memory/{SESSION}", 60)]


async def test_text_that_is_no_session_is_refused_and_shown_in_part() -> None:
    texts = Texts()
    texts.texts[f"memory/{SESSION}"] = "hello " * 1000

    with pytest.raises(InvalidMemoryError, match="a stored session must be a list") as caught:
        await StoreMemory(texts).fetch(SESSION, EVERYTHING)
    assert len(str(caught.value)) < 200


@pytest.mark.spec("A80")
async def test_entries_of_one_session_are_one_operation(autojump_clock: MockClock) -> None:
    texts = Texts()
    other = entry("c", session=UUID(int=2))
    await write_entries(StoreMemory(texts), [entry("a"), entry("b"), other])

    assert [key for key, _ in texts.updates] == [f"memory/{SESSION}", f"memory/{UUID(int=2)}"]


@pytest.mark.spec("A80")
async def test_store_without_that_operation_gets_one_entry_after_the_other() -> None:
    store = OneByOne(10)
    await write_entries(store, [entry("a"), entry("b")])

    assert store.writes == 2
    assert isinstance(store, MemoryStore)
    assert [it.content for it in await store.fetch(SESSION, EVERYTHING)] == ["a", "b"]


# Stages


def context(
    name: str,
    *,
    session: UUID | None = SESSION,
    text: str | None = "question",
    outputs: dict[str, StageOutput] | None = None,
    declared: Sequence[str] = ("llm",),
    interaction: UUID | None = None,
) -> StageContext:
    snapshot = ContextSnapshot(
        RunIdentity(session_id=session, interaction_id=interaction), input_text=text
    )
    inputs = StageInputs(snapshot, outputs or {}, declared_deps=declared, stage_name=name)
    return create_stage_context(snapshot=snapshot, inputs=inputs, stage_name=name)


class Untouchable:
    """A store that must not be called."""

    async def fetch(self, session_id: UUID, config: MemoryConfig) -> list[MemoryEntry]:
        raise AssertionError

    async def write(self, entry: MemoryEntry) -> None:
        raise AssertionError

    async def clear(self, session_id: UUID) -> int:
        raise AssertionError


@pytest.mark.spec("A78", "A79")
@pytest.mark.parametrize("make", [MemoryFetchStage, MemoryWriteStage])
async def test_stage_without_a_session_is_skipped(
    make: Callable[[MemoryStore], MemoryFetchStage | MemoryWriteStage],
) -> None:
    output = await make(Untouchable()).execute(context("memory", session=None))

    assert output == StageOutput.skip(reason="No session_id in context")


@pytest.mark.spec("A78")
async def test_fetch_stage_gives_entries_their_number_and_tokens() -> None:
    store = InMemoryStore()
    said = [entry("x" * 9, timestamp=NOON), entry("y" * 4, timestamp=NOON)]
    await store.write_all(said)
    fetch = MemoryFetchStage(store)
    output = await fetch.execute(context(fetch.name))

    assert (fetch.name, fetch.kind) == ("memory_fetch", StageKind.ENRICH)
    assert output.data == {
        "memory_entries": [it.to_dict() for it in said],
        "memory_count": 2,
        "memory_tokens": 3,
    }
    limited = MemoryFetchStage(store, MemoryConfig(max_entries=1))
    assert (await limited.execute(context("memory_fetch"))).data["memory_count"] == 1


@pytest.mark.spec("A79")
async def test_write_stage_remembers_both_sides_in_order() -> None:
    store = InMemoryStore()
    write = MemoryWriteStage(store)
    outputs = {"llm": StageOutput.ok(response=42)}
    interaction = UUID(int=7)
    output = await write.execute(context(write.name, outputs=outputs, interaction=interaction))

    assert (write.name, write.kind) == ("memory_write", StageKind.WORK)
    assert output == StageOutput.ok(entries_written=2, session_id=str(SESSION))
    user, assistant = await store.fetch(SESSION, EVERYTHING)
    assert (user.id, user.role, user.content) == (f"{interaction}_user", "user", "question")
    assert (assistant.id, assistant.role) == (f"{interaction}_assistant", "assistant")
    assert (assistant.content, assistant.metadata) == ("42", {})


@pytest.mark.spec("A79")
@pytest.mark.parametrize(
    ("text", "response", "ids"),
    [
        ("hi", "", ["unknown_user"]),
        ("hi", None, ["unknown_user"]),
        ("", "ho", ["unknown_assistant"]),
        (None, "ho", ["unknown_assistant"]),
        (None, None, []),
    ],
)
async def test_side_that_said_nothing_is_not_remembered(
    text: str | None, response: str | None, ids: list[str]
) -> None:
    store = InMemoryStore()
    write = MemoryWriteStage(store, response_stage="answer", response_key="said")
    outputs = {"answer": StageOutput.ok(said=response)}
    ctx = context("memory_write", text=text, outputs=outputs, declared=["answer"])
    output = await write.execute(ctx)

    assert output.data["entries_written"] == len(ids)
    assert [it.id for it in await store.fetch(SESSION, EVERYTHING)] == ids


@pytest.mark.spec("A80")
async def test_write_stage_writes_both_sides_in_one_operation(autojump_clock: MockClock) -> None:
    texts = Texts()
    outputs = {"llm": StageOutput.ok(response="answer")}
    await MemoryWriteStage(StoreMemory(texts)).execute(context("memory_write", outputs=outputs))

    assert len(texts.updates) == 1
    assert [it["role"] for it in json.loads(texts.texts[f"memory/{SESSION}"])] == [
        "user",
        "assistant",
    ]


async def answer(ctx: StageContext) -> StageOutput:
    return StageOutput.ok(response="answer")


@pytest.mark.spec("A81")
def test_lint_misses_the_stage_that_answers() -> None:
    write = MemoryWriteStage(InMemoryStore())
    wrong = Pipeline.from_stages(stage("llm", answer), stage("remember", write)).lint()
    right = Pipeline.from_stages(stage("llm", answer), stage("remember", write, after=["llm"]))

    (issue,) = [it for it in wrong.issues if it.code == "MEMORY-001-RESPONSE_NOT_DECLARED"]
    assert (issue.stage_name, issue.accessed_stage) == ("remember", "llm")
    assert issue.severity is IssueSeverity.WARNING
    assert right.lint().issues == ()


@pytest.mark.spec("A81")
async def test_write_stage_cannot_read_what_it_does_not_declare() -> None:
    store = InMemoryStore()

    with pytest.raises(UndeclaredDependencyError):
        await MemoryWriteStage(store).execute(context("memory_write", declared=[]))
    assert store.get_all_sessions() == []


@pytest.mark.spec("A78", "A79", "A81")
async def test_stages_remember_across_runs(autojump_clock: MockClock) -> None:
    store = InMemoryStore()
    pipeline = Pipeline.from_stages(
        stage("memory_fetch", MemoryFetchStage(store)),
        stage("llm", answer, after=["memory_fetch"]),
        stage("memory_write", MemoryWriteStage(store), after=["llm"]),
    )
    counts = []
    for text in ("one", "two"):
        snapshot = ContextSnapshot(RunIdentity(session_id=SESSION), input_text=text)
        results = await pipeline.run(snapshot)
        counts.append(results["memory_fetch"].data["memory_count"])
        assert results["memory_write"].status is StageStatus.OK

    assert counts == [0, 2]


# Interrupted turns


@pytest.mark.spec("A82")
def test_of_an_interrupted_answer_what_was_heard_is_remembered() -> None:
    user, assistant = exchange(SESSION, "i", said="tell me", answered="Once", interrupted=True)

    assert (user.content, user.metadata) == ("tell me", {})
    assert (assistant.content, assistant.metadata) == ("Once", {"interrupted": True})
    assert [it.id for it in (user, assistant)] == ["i_user", "i_assistant"]
    assert [it.role for it in exchange(str(SESSION), None, said="x", interrupted=True)] == ["user"]


@pytest.mark.spec("A82")
@pytest.mark.parametrize(("said", "metadata"), [(True, {"interrupted": True}), (False, {})])
async def test_write_stage_believes_an_output_that_says_it_was_interrupted(
    said: bool, metadata: dict[str, bool]
) -> None:
    store = InMemoryStore()
    outputs = {"llm": StageOutput.ok(response="Once", interrupted=said)}
    await MemoryWriteStage(store).execute(context("memory_write", outputs=outputs))

    _, assistant = await store.fetch(SESSION, EVERYTHING)
    assert assistant.metadata == metadata


# Bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", None),
        ("session_id", "nobody"),
        ("session_id", 3),
        ("role", ""),
        ("content", None),
        ("content", b"bytes"),
        ("timestamp", datetime(2026, 1, 1)),  # noqa: DTZ001 - that it is naive is the point
        ("timestamp", "2026-01-01"),
        ("timestamp", "yesterday"),
        ("timestamp", 0),
        ("metadata", None),
        ("metadata", {1: 2}),
    ],
)
def test_impossible_entry_is_refused_with_its_field(field: str, value: object) -> None:
    fields = {"id": "i", "session_id": SESSION, "role": "user", "content": "hi", field: value}

    with pytest.raises(InvalidMemoryError) as caught:
        MemoryEntry.from_dict(fields)

    assert caught.value.argument == field
    assert caught.value.found is value


@pytest.mark.parametrize(
    ("data", "argument"), [({"id": "i"}, "session_id"), (["id"], "entry"), (None, "entry")]
)
def test_json_that_is_no_entry_is_refused(data: Any, argument: str) -> None:
    with pytest.raises(InvalidMemoryError) as caught:
        MemoryEntry.from_dict(data)

    assert caught.value.argument == argument


@pytest.mark.parametrize(
    "make",
    [
        lambda: MemoryConfig(max_entries=-1),
        lambda: MemoryConfig(max_entries=1.5),  # type: ignore[arg-type]
        lambda: MemoryConfig(max_tokens=-1),
        lambda: MemoryConfig(recency_window_seconds=-1),
        lambda: MemoryConfig(recency_window_seconds=float("nan")),
        lambda: InMemoryStore(max_entries_per_session=0),
        lambda: InMemoryStore(max_sessions=0),
        lambda: StoreMemory(Texts(), ttl_seconds=0),
        lambda: StoreMemory(Texts(), max_entries_per_session=0),
    ],
)
def test_impossible_limits_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidMemoryError):
        make()


@settings(max_examples=20)
@given(
    writes=st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=40),
    max_entries=st.integers(1, 5),
    max_sessions=st.integers(1, 3),
)
@pytest.mark.spec("A76")
def test_store_never_holds_more_than_it_may(
    writes: list[tuple[int, bool]], max_entries: int, max_sessions: int
) -> None:
    async def main() -> None:
        store = InMemoryStore(max_entries_per_session=max_entries, max_sessions=max_sessions)
        recent: list[UUID] = []
        for number, (who, is_system) in enumerate(writes):
            session = UUID(int=who)
            await store.write(entry(str(number), "system" if is_system else "user", session))
            recent = [*(it for it in recent if it != session), session][-max_sessions:]

            assert store.get_all_sessions() == recent
            assert len(await store.fetch(session, EVERYTHING)) <= max_entries

    logging.getLogger("actorflow.memory").disabled = True
    try:
        run_seeded(main)
    finally:
        logging.getLogger("actorflow.memory").disabled = False
