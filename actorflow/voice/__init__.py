"""Voice: sessions that listen, answer aloud, and stop when they are spoken into."""

from __future__ import annotations

from ._app import VoiceApp as VoiceApp
from ._listening import (
    BargeIn as BargeIn,
    Endpointing as Endpointing,
    Utterance as Utterance,
)
from ._rates import RateConverter as RateConverter, Resample as Resample
from ._stages import (
    SpeakStage as SpeakStage,
    Spoken as Spoken,
    TranscribeStage as TranscribeStage,
)
from ._user_turn import UserTurn as UserTurn, turn_ports as turn_ports, user_turn as user_turn
