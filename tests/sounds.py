"""Recordings for tests: silence and hums in the containers that clients send."""

import io
import math
import struct
import wave
from typing import Any

import av
import numpy as np


def wav(seconds: float, sample_rate: int = 16_000, channels: int = 1) -> bytes:
    """Return a WAV file with a quiet hum on every channel."""
    count = round(seconds * sample_rate)
    hum = (np.sin(np.arange(count) * 2 * math.pi * 220 / sample_rate) * 3000).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(sample_rate)
        writer.writeframes(hum.repeat(channels).tobytes())
    return file.getvalue()


def flac_of_silence(seconds: int, sample_rate: int = 8_000) -> bytes:
    """Return hours of nothing in a few kilobytes."""
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream: Any = container.add_stream("flac", rate=sample_rate, layout="mono")
        frame = av.AudioFrame(format="s16", layout="mono", samples=sample_rate * 10)
        frame.planes[0].update(bytes(sample_rate * 20))
        frame.sample_rate = sample_rate
        for number in range(seconds // 10):
            frame.pts = number * sample_rate * 10
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def video_only() -> bytes:
    """Return an MP4 file with a picture and no sound."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode(None))
    return file.getvalue()


def announcing(data: bytes, samples: int) -> bytes:
    """Return a WAV file that says in its header that it has another length."""
    at = data.index(b"data") + 4
    return data[:at] + struct.pack("<I", samples * 2) + data[at + 4 :]
