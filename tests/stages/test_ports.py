from __future__ import annotations

import copy
from typing import Any

import pytest

from actorflow.errors import InvalidArgumentError
from actorflow.stages import (
    AudioPorts,
    CorePorts,
    LLMPorts,
    PipelineContext,
    Ports,
    create_audio_ports,
    create_core_ports,
    create_llm_ports,
)


@pytest.mark.spec("10.17.1")
@pytest.mark.parametrize(
    "ports", [CorePorts(db=1), LLMPorts(), AudioPorts(), Ports(), {"anything": 1}, object()]
)
def test_stages_and_children_get_the_ports_of_the_context(ports: object) -> None:
    context = PipelineContext(ports=ports)

    assert context.derive_for_stage("stage").ports is ports
    assert context.fork().derive_for_stage("stage").ports is ports


@pytest.mark.spec("10.17.2")
def test_bundle_finds_what_its_groups_and_extras_have() -> None:
    ports = Ports(
        CorePorts(db="db"),
        LLMPorts(chat_service="chat"),
        AudioPorts(recording="recording"),
        {"search": "search", "db": "shadowed", "send_token": "extra"},
    )

    assert (ports.db, ports.chat_service, ports.recording) == ("db", "chat", "recording")
    assert ports.search == "search"
    # Not set in the group that knows the name, so the next one is asked.
    assert ports.send_token == "extra"
    # A group is there that knows the name, as code written for the group expects.
    assert ports.tts_provider is None


@pytest.mark.spec("10.17.2")
def test_unknown_port_is_refused_with_those_that_are_set() -> None:
    ports = Ports(core=CorePorts(db=1, call_logger=2), extra={"search": 3})

    with pytest.raises(AttributeError, match="no port 'dp', set are: db, call_logger, search"):
        ports.dp
    with pytest.raises(AttributeError, match="set are: nothing"):
        Ports().db


@pytest.mark.spec("10.17.3")
def test_database_alone_makes_core_ports() -> None:
    assert PipelineContext(db="db").ports == CorePorts(db="db")
    assert PipelineContext().ports is None
    llm = LLMPorts()
    assert PipelineContext(db="db", ports=llm).ports is llm


def test_factories_take_every_port_by_name() -> None:
    assert create_core_ports(db=1) == CorePorts(db=1)
    assert create_llm_ports(llm_provider=1) == LLMPorts(llm_provider=1)
    assert create_audio_ports(recording=1) == AudioPorts(recording=1)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("tts_client", "tts_provider"),
        ("stt_client", "stt_provider"),
        ("audio_callback", "send_audio_chunk"),
    ],
)
def test_audio_ports_have_second_names(alias: str, name: str) -> None:
    assert create_audio_ports(**{alias: 1}) == AudioPorts(**{name: 1})
    with pytest.raises(InvalidArgumentError, match=f"{alias} must be left out when {name}"):
        create_audio_ports(**{alias: 1, name: 2})


def test_ports_cannot_be_changed() -> None:
    ports: Any = Ports(core=CorePorts(), extra={"a": 1})

    for change in (
        lambda: setattr(ports, "core", None),
        lambda: setattr(ports.core, "db", 1),
        lambda: ports.extra.update(b=2),
    ):
        with pytest.raises((AttributeError, TypeError)):
            change()


def test_bundle_can_be_copied() -> None:
    ports = Ports(core=CorePorts(db=[1]))

    assert copy.copy(ports).db is ports.db
