"""Pipelines by name."""

from __future__ import annotations

from typing import Any

import pytest

from actorflow.errors import InvalidArgumentError, InvalidTypeError, PipelineNotFoundError
from actorflow.pipeline import Pipeline, PipelineRegistry, pipeline_registry


def test_registered_pipelines_are_found() -> None:
    registry = PipelineRegistry()
    voice, chat = Pipeline("voice"), Pipeline("chat")

    registry.register("voice", voice)
    registry.register("chat", chat)

    assert registry.get("voice") is voice
    assert registry.list() == ["chat", "voice"]
    assert ("voice" in registry, "other" in registry) == (True, False)
    assert len(registry) == 2


@pytest.mark.spec("20.12.1")
def test_factory_is_called_once_on_first_use() -> None:
    registry = PipelineRegistry()
    made: list[Pipeline] = []

    def make() -> Pipeline:
        made.append(Pipeline())
        return made[-1]

    registry.register("voice", make)
    assert made == []

    assert registry.get("voice") is registry.get("voice") is made[0]
    assert len(made) == 1


@pytest.mark.spec("20.12.2")
def test_unknown_name_is_answered_with_the_closest_one() -> None:
    registry = PipelineRegistry()
    registry.register("transcribe", Pipeline())
    registry.register("chat", Pipeline())

    for ask in (registry.get, registry.unregister):
        with pytest.raises(PipelineNotFoundError) as caught:
            ask("transcibe")

        error = caught.value
        assert isinstance(error, KeyError)
        assert error.code == "REGISTRY-001-NOT_FOUND"
        assert (error.name, error.known) == ("transcibe", ("chat", "transcribe"))
        assert str(error) == (
            "there is no pipeline 'transcibe', known are 'chat', 'transcribe';"
            " did you mean 'transcribe'?"
        )


@pytest.mark.spec("20.12.2")
def test_empty_registry_says_so() -> None:
    with pytest.raises(PipelineNotFoundError, match="none is registered"):
        PipelineRegistry().get("voice")


@pytest.mark.spec("20.12.3")
def test_registry_name_is_only_the_key() -> None:
    registry = PipelineRegistry()
    registry.register("voice", Pipeline())

    assert registry.get("voice").given_name is None
    assert registry.get("voice").name == "pipeline"


def test_taken_name_needs_replace() -> None:
    registry = PipelineRegistry()
    old, new = Pipeline("old"), Pipeline("new")
    registry.register("voice", old)

    with pytest.raises(InvalidArgumentError, match="'voice'"):
        registry.register("voice", new)
    assert registry.get("voice") is old
    registry.register("voice", new, replace=True)
    assert registry.get("voice") is new


def test_unregistered_pipeline_is_gone() -> None:
    registry = PipelineRegistry()
    registry.register("voice", Pipeline())

    registry.unregister("voice")

    assert "voice" not in registry
    registry.register("voice", Pipeline())


def test_empty_name_is_refused() -> None:
    with pytest.raises(InvalidArgumentError):
        PipelineRegistry().register("", Pipeline())
    wrong: Any = 5
    with pytest.raises(InvalidTypeError, match="name"):
        PipelineRegistry().register(wrong, Pipeline())


@pytest.mark.parametrize("found", [None, "voice", 3])
def test_only_pipelines_and_factories_are_registered(found: Any) -> None:
    with pytest.raises(InvalidTypeError, match="pipeline_or_factory"):
        PipelineRegistry().register("voice", found)


def test_factory_has_to_make_a_pipeline() -> None:
    def make() -> Any:
        return "voice"

    registry = PipelineRegistry()
    registry.register("voice", make)

    with pytest.raises(InvalidTypeError, match="factory of 'voice'"):
        registry.get("voice")


def test_there_is_a_default_registry() -> None:
    assert isinstance(pipeline_registry, PipelineRegistry)
