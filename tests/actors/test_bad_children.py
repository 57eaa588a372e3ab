"""What is refused before anything runs, and what the refusal says."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest

from actorflow.actors import Actor, Backoff, Child, Inbox, Supervisor, conflate
from actorflow.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    MailboxDeadlockError,
    NameTakenError,
)


async def idle(inbox: Inbox[Any]) -> None:
    async for _ in inbox:
        pass


class Idle(Actor[Any]):
    async def receive(self, message: Any) -> None:
        pass


class NoReceive(Actor[Any]):
    pass


class SyncReceive(Actor[Any]):
    def receive(self, message: Any) -> None:  # type: ignore[override]
        # That it is not async is the point.
        pass


class NeedsArguments(Idle):
    def __init__(self, device: str) -> None:
        self.device = device


class NoActor:
    async def receive(self, message: Any) -> None:
        pass


def sync(inbox: Inbox[Any]) -> None:
    pass


async def two_arguments(inbox: Inbox[Any], other: object) -> None:
    pass


async def one_and_a_default(inbox: Inbox[Any], other: object = None) -> None:
    pass


async def keyword_only(inbox: Inbox[Any], *, other: object) -> None:
    pass


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (sync, "this is not async"),
        (two_arguments, "other arguments than one inbox"),
        (keyword_only, "other arguments than one inbox"),
        (NoReceive, "this class has no receive"),
        (SyncReceive, "its receive is not async"),
        (NeedsArguments, "its __init__ needs arguments"),
        (NoActor, "this class is no Actor"),
        (Idle(), "an object has one life only"),
        (7, "this cannot be called"),
        (None, "this cannot be called"),
    ],
)
def test_impossible_behaviours_are_refused(behaviour: Any, why: str) -> None:
    with pytest.raises(InvalidTypeError) as caught:
        Child("a", behaviour)

    assert why in str(caught.value)
    assert "an async function of one inbox" in str(caught.value)


@pytest.mark.parametrize(
    "behaviour",
    [
        idle,
        one_and_a_default,
        functools.partial(two_arguments, other=1),
        Idle,
        lambda: Idle(),  # noqa: PLW0108  (a lambda is the point)
        functools.partial(NeedsArguments, "device"),
        Supervisor(),
    ],
)
def test_possible_behaviours_are_accepted(behaviour: Any) -> None:
    assert Child("a", behaviour).behaviour is behaviour


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"capacity": 0}, InvalidArgumentError, "capacity must be at least 1, found 0"),
        ({"capacity": 1.5}, InvalidTypeError, "capacity must be a whole number"),
        ({"capacity": True}, InvalidTypeError, "capacity must be a whole number"),
        (
            {"policy": "drop"},
            InvalidArgumentError,
            "policy must be one of block, fail, drop_new, drop_old or conflate(key), found 'drop'",
        ),
        (
            {"restart": "always"},
            InvalidArgumentError,
            "restart must be one of permanent, transient, temporary, found 'always'",
        ),
        ({"shutdown": -1}, InvalidArgumentError, "shutdown must be a number of at least 0"),
        ({"shutdown": math.nan}, InvalidArgumentError, "shutdown must be a number of at least 0"),
        ({"start_timeout": 0}, InvalidArgumentError, "start_timeout must be a number above 0"),
        ({"start_timeout": "3"}, InvalidTypeError, "start_timeout must be a number above 0"),
        ({"backoff": 0.5}, InvalidTypeError, "backoff must be a Backoff or None"),
    ],
)
def test_impossible_options_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        Child("a", idle, **options)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "error"),
    [("", InvalidArgumentError), ("a/b", InvalidArgumentError), (7, InvalidTypeError)],
)
def test_impossible_names_are_refused(name: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Child(name, idle)


def test_siblings_with_one_name_are_refused() -> None:
    with pytest.raises(NameTakenError, match="there is an actor 'a' already"):
        Supervisor(Child("a", idle), Child("a", idle))


def test_children_are_children() -> None:
    with pytest.raises(InvalidTypeError, match="children must be Child objects"):
        Supervisor(idle)  # type: ignore[arg-type]  # that is the mistake


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"strategy": "all"},
            "strategy must be one of one_for_one, one_for_all, rest_for_one, found 'all'",
        ),
        ({"max_restarts": -1}, "max_restarts must be a number of at least 0"),
        ({"window": 0}, "window must be a number above 0"),
        ({"max_children": -1}, "max_children must be a number of at least 0"),
    ],
)
def test_impossible_supervisors_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Supervisor(**options)

    assert message in str(caught.value)


def test_needs_are_earlier_siblings() -> None:
    with pytest.raises(InvalidArgumentError, match="names of siblings before 'a'"):
        Supervisor(Child("a", idle, needs="b"), Child("b", idle))


def test_targets_are_siblings() -> None:
    with pytest.raises(InvalidArgumentError, match="sends_to must be names of siblings"):
        Supervisor(Child("a", idle, sends_to="b"))


def test_ring_of_waiting_senders_is_refused_by_name() -> None:
    with pytest.raises(MailboxDeadlockError) as caught:
        Supervisor(
            Child("a", idle, sends_to="b"),
            Child("b", idle, sends_to=("d", "c")),
            Child("c", idle, sends_to="a"),
            Child("d", idle),
        )

    assert caught.value.ring == ("a", "b", "c", "a")
    assert str(caught.value).endswith("a -> b -> c -> a")


@pytest.mark.parametrize("policy", ["fail", "drop_new", "drop_old", conflate(id)])
def test_ring_with_an_edge_that_does_not_wait_is_accepted(policy: Any) -> None:
    Supervisor(
        Child("a", idle, sends_to="b", policy=policy),
        Child("b", idle, sends_to=("a", "b2")),
        Child("b2", idle),
    )


@pytest.mark.parametrize(
    "options",
    [
        {"base": -1},
        {"cap": -1},
        {"factor": 0.5},
        {"jitter": 1.5},
        {"jitter": -1},
        {"reset_after": -1},
    ],
)
def test_impossible_backoffs_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidArgumentError):
        Backoff(**options)


def test_conflate_wants_a_function() -> None:
    with pytest.raises(InvalidTypeError, match="key must be a function of a message"):
        conflate("key")  # type: ignore[arg-type]  # that is the mistake
