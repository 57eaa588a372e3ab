"""Messages on the wire: three formats, and what strangers send."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from actorflow.errors import InvalidAudioError, ProtocolViolationError
from actorflow.protocol import (
    CLIENT_MESSAGES,
    PROTOCOL,
    SERVER_MESSAGES,
    Ack,
    AudioShape,
    ClientMessage,
    CloseCode,
    Closing,
    End,
    Error,
    ErrorCode,
    Failure,
    Flow,
    Frame,
    HouseClientFormat,
    HouseFormat,
    Interrupt,
    Interrupted,
    Numbered,
    Ping,
    PlainAudioFormat,
    Played,
    Pong,
    Ready,
    ReplyAudio,
    ReplyText,
    ServerEvent,
    ServerMessage,
    SessionLimits,
    Start,
    Transcript,
    TurnCompleted,
    TurnStarted,
    TwilioFormat,
    UserAudio,
    UserText,
    WireFormat,
)

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "protocol.md"
LIMITS = SessionLimits(
    max_message_size=1000, inbound_ms=2000, idle_timeout=300, heartbeat_interval=20
)

# What is agreed on: a change here breaks clients that are out there.
GOLDEN_CLIENT: list[tuple[ClientMessage, str]] = [
    (
        Start(metadata={"caller": "ada"}, resume_token="s.1", last_seq=7),
        (
            '{"type":"start","protocol":"actorflow.v1",'
            '"audio":{"sample_rate":16000,"channels":1,"format":"pcm_16"},'
            '"metadata":{"caller":"ada"},"text_only":false,"resume_token":"s.1","last_seq":7}'
        ),
    ),
    (UserText("hello"), '{"type":"text","text":"hello"}'),
    (
        Interrupt("turn-1", 250.5, "barge-in"),
        '{"type":"interrupt","turn_id":"turn-1","played_ms":250.5,"reason":"barge-in"}',
    ),
    (End("turn"), '{"type":"end","scope":"turn"}'),
    (Ack(12), '{"type":"ack","seq":12}'),
    (Played("turn-1", 40.0), '{"type":"played","turn_id":"turn-1","played_ms":40.0}'),
    (Ping("7"), '{"type":"ping","id":"7"}'),
]

GOLDEN_SERVER: list[tuple[ServerMessage, str]] = [
    (
        Ready("s", False, LIMITS, "s.2"),
        (
            '{"type":"ready","seq":3,"session_id":"s","resumed":false,"limits":{"max_message_size":1000,'
            '"inbound_ms":2000,"idle_timeout":300,"heartbeat_interval":20},"resume_token":"s.2"}'
        ),
    ),
    (
        TurnStarted("turn-1", "018f"),
        '{"type":"turn_started","seq":3,"turn_id":"turn-1","pipeline_run_id":"018f"}',
    ),
    (
        TurnCompleted("turn-1", "failed", 12.5, Failure("RUN-001", "no")),
        (
            '{"type":"turn_completed","seq":3,"turn_id":"turn-1","status":"failed","duration_ms":12.5,'
            '"error":{"code":"RUN-001","message":"no"}}'
        ),
    ),
    (
        Transcript("turn-1", "what is it", is_final=False, confidence=0.5),
        (
            '{"type":"transcript","seq":3,"turn_id":"turn-1","text":"what is it","is_final":false,'
            '"confidence":0.5}'
        ),
    ),
    (
        ReplyText("turn-1", "It", is_final=True),
        '{"type":"text","seq":3,"turn_id":"turn-1","delta":"It","is_final":true}',
    ),
    (
        Interrupted("turn-1", 300.0, 4),
        (
            '{"type":"interrupted","seq":3,"turn_id":"turn-1","discarded_ms":300.0,'
            '"last_audio_sequence":4}'
        ),
    ),
    (
        Flow("in", "pause", 2000.0, 3),
        '{"type":"flow","seq":3,"direction":"in","state":"pause","buffered_ms":2000.0,"dropped":3}',
    ),
    (
        ServerEvent("stage.started", {"stage": "listen"}),
        '{"type":"event","seq":3,"event":"stage.started","data":{"stage":"listen"}}',
    ),
    (
        Error("PROTOCOL", "no", fatal=True),
        '{"type":"error","seq":3,"code":"PROTOCOL","message":"no","fatal":true}',
    ),
    (
        Closing("drain", 30.0),
        '{"type":"closing","seq":3,"reason":"drain","deadline_seconds":30.0}',
    ),
    (Pong("7"), '{"type":"pong","seq":3,"id":"7"}'),
]


def refused(format: WireFormat | HouseClientFormat, frame: Frame) -> ProtocolViolationError:
    with pytest.raises(ProtocolViolationError) as caught:
        format.read(frame)
    return caught.value


# The house format


@pytest.mark.parametrize(("message", "text"), GOLDEN_CLIENT)
def test_words_of_the_client_are_as_agreed(message: ClientMessage, text: str) -> None:
    assert HouseClientFormat().write(message) == (text,)
    assert HouseFormat().read(text)[1] == (message,)


@pytest.mark.parametrize(("message", "text"), GOLDEN_SERVER)
def test_words_of_the_server_are_as_agreed(message: ServerMessage, text: str) -> None:
    assert HouseFormat().write(3, message) == (text,)
    assert HouseClientFormat().read(text)[1] == (Numbered(3, message),)


def test_every_message_has_a_golden_line_or_is_audio() -> None:
    said = {message.type for message, _ in GOLDEN_CLIENT} | {"audio"}
    answered = {message.type for message, _ in GOLDEN_SERVER} | {"audio"}

    assert said == set(CLIENT_MESSAGES)
    assert answered == set(SERVER_MESSAGES)


def test_audio_of_the_user_is_a_binary_frame_or_base64() -> None:
    (frame,) = HouseClientFormat().write(UserAudio(b"\0\1"))

    assert frame == b"\0\1"
    assert HouseFormat().read(frame)[1] == (UserAudio(b"\0\1"),)
    assert HouseFormat().read('{"type":"audio","data":"AAE="}')[1] == (UserAudio(b"\0\1"),)


def test_audio_of_the_server_is_a_header_and_one_binary_frame() -> None:
    audio = ReplyAudio("turn-1", 0, 20.0, 20.0, b"\0" * 640)
    header, data = HouseFormat().write(9, audio)
    waiting, nothing = HouseClientFormat().read(header)
    after, heard = waiting.read(data)

    assert header == (
        '{"type":"audio","seq":9,"turn_id":"turn-1","sequence":0,"duration_ms":20.0,'
        '"ends_at_ms":20.0,"data":""}'
    )
    assert data == b"\0" * 640
    assert (nothing, heard, after) == ((), (Numbered(9, audio),), HouseClientFormat())


def test_client_may_ask_for_text_only() -> None:
    format, _ = HouseFormat().read('{"type":"start","protocol":"actorflow.v1","text_only":true}')
    (text,) = format.write(1, ReplyAudio("turn-1", 0, 0.0625, 0.0625, b"\0\1"))

    assert isinstance(text, str)
    assert json.loads(text)["data"] == "AAE="
    heard = HouseClientFormat().read(text)[1]
    assert heard == (Numbered(1, ReplyAudio("turn-1", 0, 0.0625, 0.0625, b"\0\1")),)


def test_messages_of_the_connection_have_no_number() -> None:
    (text,) = HouseFormat().write(0, Pong())

    assert text == '{"type":"pong"}'
    assert HouseClientFormat().read(text)[1] == (Numbered(0, Pong()),)


def test_client_refuses_a_server_out_of_step() -> None:
    waiting, _ = HouseClientFormat().read(
        '{"type":"audio","seq":1,"turn_id":"t","sequence":0,"duration_ms":1,"ends_at_ms":1}'
    )

    assert "should follow" in str(refused(waiting, '{"type":"pong"}'))
    assert "without a header" in str(refused(HouseClientFormat(), b"\0"))
    for seq in ("-1", "true", '"1"', "1.0"):
        assert "seq" in str(refused(HouseClientFormat(), f'{{"type":"pong","seq":{seq}}}'))


@pytest.mark.spec("A89")
def test_unknown_fields_are_ignored() -> None:
    assert HouseFormat().read('{"type":"ack","seq":1,"colour":"red"}')[1] == (Ack(1),)


@pytest.mark.spec("A89")
@pytest.mark.parametrize(
    ("frame", "close_code", "part"),
    [
        ("{", CloseCode.BAD_DATA, "no JSON"),
        ("[" * 100_000, CloseCode.BAD_DATA, "no JSON"),
        ('{"type":"ack","seq":' + "9" * 5000 + "}", CloseCode.BAD_DATA, "no JSON"),
        ('{"type":"ack","seq":NaN}', CloseCode.BAD_DATA, "no JSON"),
        ('{"type":"played","turn_id":"t","played_ms":1e999}', CloseCode.BAD_DATA, "no JSON"),
        ('{"type":"text","text":"\\ud800"}', CloseCode.BAD_DATA, "no JSON"),
        ('{"type":"text","text":"\ud800"}', CloseCode.BAD_DATA, "no JSON"),
        ("[]", CloseCode.PROTOCOL, "no JSON object"),
        ("{}", CloseCode.PROTOCOL, "unknown type"),
        ('{"type":"shout"}', CloseCode.PROTOCOL, "unknown type"),
        ('{"type":["ack"]}', CloseCode.PROTOCOL, "unknown type"),
        ('{"type":"ack"}', CloseCode.PROTOCOL, "seq is not given"),
        ('{"type":"ack","seq":"1"}', CloseCode.PROTOCOL, "seq is not a whole number"),
        ('{"type":"ack","seq":-1}', CloseCode.PROTOCOL, "at least 0"),
        ('{"type":"end","scope":"world"}', CloseCode.PROTOCOL, "scope is not valid"),
        ('{"type":"text","text":7}', CloseCode.PROTOCOL, "text is not a string"),
        ('{"type":"audio","data":"?"}', CloseCode.PROTOCOL, "data is not base64"),
        ('{"type":"start","protocol":"v9"}', CloseCode.PROTOCOL, "'actorflow.v1'"),
        ('{"type":"start","metadata":[]}', CloseCode.PROTOCOL, "metadata is not a mapping"),
        (
            '{"type":"start","metadata":{"a":' + "[" * 300 + "]" * 300 + "}}",
            CloseCode.PROTOCOL,
            "start",
        ),
    ],
)
def test_nonsense_is_refused_with_its_close_code(
    frame: str, close_code: CloseCode, part: str
) -> None:
    error = refused(HouseFormat(), frame)

    assert part in str(error)
    assert error.close_code == close_code
    assert len(str(error)) < 300


@pytest.mark.spec("A91")
@pytest.mark.parametrize(
    "audio",
    [
        {"format": "mp3"},
        {"sample_rate": 10**9},
        {"sample_rate": True},
        {"channels": 0},
        {"channels": "1"},
    ],
)
def test_audio_that_nobody_can_play_is_refused(audio: dict[str, Any]) -> None:
    error = refused(HouseFormat(), json.dumps({"type": "start", "audio": audio}))

    assert error.error_code == ErrorCode.AUDIO_FORMAT
    assert error.close_code == CloseCode.PROTOCOL


def test_refusal_does_not_repeat_what_was_said() -> None:
    secret = "my secret " * 10
    frames = [
        f'{{"type":"end","scope":"{secret}"}}',
        f'{{"type":"ack","seq":"{secret}"}}',
        secret,
        f'{{"type":"{secret}"}}',
        f'{{"type":"start","metadata":{{"{secret}":{"[" * 300 + "]" * 300}}}}}',
    ]

    assert not any("secret" in str(refused(HouseFormat(), frame)) for frame in frames)


def test_messages_do_not_show_what_the_user_says() -> None:
    shown = repr([UserText("secret"), UserAudio(b"secret"), Start(resume_token="secret")])

    assert "secret" not in shown


@pytest.mark.spec("A112")
def test_message_above_the_limit_is_refused() -> None:
    format = HouseFormat(max_message_size=20)
    client = HouseClientFormat(max_message_size=20)

    assert format.read(b"\0" * 20)[1] == (UserAudio(b"\0" * 20),)
    for frame in (b"\0" * 21, "é" * 11, "a" * 21, "\ud800" * 7):
        assert refused(format, frame).close_code == CloseCode.TOO_BIG
        assert refused(client, frame).close_code == CloseCode.TOO_BIG


# Whatever comes in


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
FIELDS = (
    "type event seq text data scope played_ms turn_id metadata audio start media mark dtmf protocol"
).split()
NAMES = [*CLIENT_MESSAGES, *SERVER_MESSAGES, "connected", "media", "mark", "dtmf", "stop"]
OBJECTS = st.fixed_dictionaries(
    {"type": st.sampled_from(NAMES) | JSON, "event": st.sampled_from(NAMES) | JSON},
    optional=dict.fromkeys(FIELDS[2:], JSON),
)
TRUNCATED = st.builds(
    lambda line, end: line[: int(end * len(line))],
    st.sampled_from([text for _, text in GOLDEN_CLIENT + GOLDEN_SERVER]),
    st.floats(0, 1),
)
FRAMES = (
    st.text(max_size=40)
    | st.binary(max_size=40)
    | JSON.map(json.dumps)
    | OBJECTS.map(json.dumps)
    | TRUNCATED
    | st.text(st.characters(codec=None), max_size=5)
    | st.just("x" * 2000)
    | st.just(b"x" * 2000)
)
FORMATS: list[WireFormat | HouseClientFormat] = [
    HouseFormat(1000),
    HouseClientFormat(1000),
    TwilioFormat(1000),
    PlainAudioFormat(max_message_size=1000),
]


def close_code_of(format: WireFormat | HouseClientFormat, frames: list[Frame]) -> int:
    for frame in frames:
        try:
            format, _ = format.read(frame)
        except ProtocolViolationError as error:
            return error.close_code
    return CloseCode.NORMAL


@pytest.mark.spec("A89")
@settings(max_examples=250)
@given(st.sampled_from(FORMATS), st.lists(FRAMES, min_size=1, max_size=4))
def test_strangers_get_messages_or_the_one_error(
    format: WireFormat | HouseClientFormat, frames: list[Frame]
) -> None:
    assert close_code_of(format, frames) in set(CloseCode)


TEXTS = st.text(max_size=20)
CLIENT = st.one_of(
    st.builds(Start, metadata=st.dictionaries(TEXTS, TEXTS), last_seq=st.integers(0, 9)),
    st.builds(UserAudio, st.binary(max_size=9)),
    st.builds(UserText, TEXTS),
    st.builds(Interrupt, st.none() | TEXTS, st.none() | st.floats(0, 1e6), TEXTS),
    st.builds(End, st.sampled_from(["turn", "session"])),
    st.builds(Ack, st.integers(0, 2**53)),
    st.builds(Played, TEXTS, st.floats(0, 1e6)),
    st.builds(Ping, st.none() | TEXTS),
)


@given(CLIENT)
def test_words_of_the_client_arrive_as_they_were_meant(message: ClientMessage) -> None:
    (frame,) = HouseClientFormat().write(message)

    assert HouseFormat().read(frame)[1] == (message,)


@given(st.binary(min_size=1, max_size=9), st.booleans(), st.integers(1, 99), st.floats(0, 1e6))
def test_audio_of_the_server_arrives_as_it_was_sent(
    data: bytes, text_only: bool, seq: int, ms: float
) -> None:
    audio = ReplyAudio("turn-1", seq, ms, ms, data)
    client = HouseClientFormat()
    heard: list[Numbered] = []
    for frame in HouseFormat(text_only=text_only).write(seq, audio):
        client, messages = client.read(frame)
        heard.extend(messages)

    assert heard == [Numbered(seq, audio)]


# Twilio


START = {
    "event": "start",
    "sequenceNumber": "1",
    "streamSid": "MZ1",
    "start": {
        "accountSid": "AC1",
        "streamSid": "MZ1",
        "callSid": "CA1",
        "tracks": ["inbound"],
        "customParameters": {"language": "en"},
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
    },
}


def on_the_phone() -> TwilioFormat:
    return TwilioFormat().read(json.dumps(START))[0]


def heard(event: str, **content: object) -> tuple[ClientMessage, ...]:
    return on_the_phone().read(json.dumps({"event": event, "streamSid": "MZ1", **content}))[1]


def test_call_starts_a_session_of_telephone_audio() -> None:
    format, messages = TwilioFormat().read(json.dumps(START))

    assert messages == (
        Start(
            audio=AudioShape(8000, 1),
            metadata={"stream_sid": "MZ1", "call_sid": "CA1", "parameters": {"language": "en"}},
        ),
    )
    assert format.stream_sid == "MZ1"
    assert heard("connected", protocol="Call", version="1.0.0") == ()


def test_media_is_audio_of_the_user() -> None:
    payload = base64.b64encode(b"\xff\x7f\x00\x80").decode()
    media = {"track": "inbound", "chunk": "1", "timestamp": "5", "payload": payload}

    assert heard("media", media=media) == (UserAudio(b"\0\0\0\0\x84\x82\x7c\x7d"),)
    assert heard("media", media=media | {"track": "outbound"}) == ()


def test_keys_marks_and_the_end_of_a_call_are_understood() -> None:
    assert heard("dtmf", dtmf={"track": "inbound_track", "digit": "5"}) == (UserText("5"),)
    assert heard("mark", mark={"name": "turn-1@40.000"}) == (Played("turn-1", 40.0),)
    assert heard("stop", stop={"accountSid": "AC1"}) == (End("session"),)


@pytest.mark.parametrize(
    "name", ["", "hello", "turn-1@", "turn-1@x", "turn-1@-1", "t@nan", "t@inf"]
)
def test_marks_of_others_are_ignored(name: str) -> None:
    assert heard("mark", mark={"name": name}) == ()


def test_audio_to_the_phone_is_followed_by_its_mark() -> None:
    media, mark = on_the_phone().write(4, ReplyAudio("turn-1", 0, 0.25, 20.5, b"\0\0\x7c\x7d"))

    assert media == '{"event":"media","streamSid":"MZ1","media":{"payload":"/4A="}}'
    assert mark == '{"event":"mark","streamSid":"MZ1","mark":{"name":"turn-1@20.500"}}'
    assert isinstance(mark, str)
    assert on_the_phone().read(mark)[1] == (Played("turn-1", 20.5),)


def test_interruption_clears_the_phone_and_other_words_are_left_out() -> None:
    phone = on_the_phone()

    assert phone.write(5, Interrupted("turn-1")) == ('{"event":"clear","streamSid":"MZ1"}',)
    assert phone.write(5, Interrupted(None)) == ()
    assert phone.write(6, TurnStarted("turn-1")) == ()


def test_wrong_words_on_the_phone_are_refused() -> None:
    stereo = json.loads(json.dumps(START))
    stereo["start"]["mediaFormat"]["channels"] = 2

    assert refused(TwilioFormat(), json.dumps(stereo)).error_code == ErrorCode.AUDIO_FORMAT
    assert "binary" in str(refused(TwilioFormat(), b"\0"))
    assert "unknown kind" in str(refused(TwilioFormat(), '{"event":"sing"}'))
    assert "unknown kind" in str(refused(TwilioFormat(), '{"event":{}}'))
    assert "start" in str(refused(TwilioFormat(), '{"event":"start"}'))
    assert refused(TwilioFormat(10), json.dumps(START)).close_code == CloseCode.TOO_BIG


# Plain audio


def test_plain_audio_has_a_start_and_no_words() -> None:
    format = PlainAudioFormat(AudioShape(24_000, 2))

    assert format.opening() == (Start(audio=AudioShape(24_000, 2)),)
    assert format.read(b"\0\1") == (format, (UserAudio(b"\0\1"),))
    assert format.write(1, ReplyAudio("turn-1", 0, 1.0, 1.0, b"\2\3")) == (b"\2\3",)
    assert format.write(1, Interrupted("turn-1")) == ()
    assert "only audio" in str(refused(format, "hello"))


def test_other_formats_are_opened_by_their_clients() -> None:
    assert HouseFormat().opening() == TwilioFormat().opening() == ()


def test_only_the_house_format_can_resume() -> None:
    formats: list[WireFormat] = [HouseFormat(), TwilioFormat(), PlainAudioFormat()]

    assert [format.is_resumable for format in formats] == [True, False, False]
    assert [format.subprotocol for format in formats] == [PROTOCOL, None, None]


# Values


def test_shape_measures_bytes() -> None:
    assert AudioShape().duration_ms(640) == 20.0
    assert AudioShape(8000, 2).duration_ms(320) == 10.0
    assert AudioShape(channels=2).frame_size == 4


def test_shape_without_an_end_is_refused() -> None:
    with pytest.raises(InvalidAudioError, match="sample_rate"):
        AudioShape(sample_rate=1)
    with pytest.raises(InvalidAudioError, match="pcm_16"):
        AudioShape(format="mp3")  # type: ignore[arg-type]


def test_times_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="played_ms"):
        Played("turn-1", math.nan)


def test_metadata_cannot_be_changed() -> None:
    start = Start(metadata={"a": [1]})

    with pytest.raises(TypeError):
        start.metadata["b"] = 2  # type: ignore[index]
    assert attrs.evolve(start) == start


@pytest.mark.spec("A116")
def test_close_codes_are_as_agreed() -> None:
    assert {code.name.lower(): int(code) for code in CloseCode} == {
        "normal": 1000,
        "going_away": 1001,
        "bad_data": 1007,
        "policy": 1008,
        "too_big": 1009,
        "internal": 1011,
        "overloaded": 1013,
        "no_start": 4000,
        "idle": 4001,
        "heartbeat": 4002,
        "protocol": 4003,
        "resume_refused": 4004,
        "replaced": 4005,
        "slow_client": 4006,
    }
    page = REFERENCE.read_text("utf-8")
    assert all(f"| {int(code)} | `{code.name}` |" in page for code in CloseCode)
