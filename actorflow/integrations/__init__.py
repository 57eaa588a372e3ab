"""Bridges to other systems. Each needs the extra that its error names."""

from __future__ import annotations

from ._otel import OTelEventSink as OTelEventSink
from ._otel_headers import trace_headers as trace_headers
from ._otel_system import observe_system as observe_system
from ._pocketsphinx import PocketsphinxRecognizer as PocketsphinxRecognizer
from ._silero import SileroDetector as SileroDetector
from ._sounddevice import (
    Speaker as Speaker,
    open_microphone as open_microphone,
    open_speaker as open_speaker,
)
from ._soxr import Resampler as Resampler
from ._speech_programs import (
    EspeakSynthesizer as EspeakSynthesizer,
    FliteSynthesizer as FliteSynthesizer,
    SpeechProgram as SpeechProgram,
)
