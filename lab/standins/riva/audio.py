"""Cuts incoming audio into the model's chunks. Only lengths matter here, the samples are not kept."""

from __future__ import annotations

import struct

BYTES_PER_SAMPLE = 2
LARGEST_HEADER = 65536


class AudioError(ValueError):
    """The audio cannot be used. The text says why and what would be right."""


class ChunkCutter:
    """16-bit mono PCM, with or without a WAV header in front (NVIDIA's file client sends it too)."""

    def __init__(self, sample_rate: int, chunk_ms: int) -> None:
        self.sample_rate = sample_rate
        self._chunk_ms = chunk_ms
        self._head = b""
        self._head_done = False
        self._bytes = 0
        self.samples = 0

    @property
    def chunk_samples(self) -> int:
        return max(1, self.sample_rate * self._chunk_ms // 1000)

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate if self.sample_rate else 0.0

    def feed(self, data: bytes) -> list[int]:
        """Lengths in samples of the chunks that are complete now."""
        if not self._head_done:
            data = self._strip_header(data)
        if not data:
            return []
        if not self.sample_rate:
            raise AudioError("config.sample_rate_hertz is 0 and the audio has no WAV header: set the sample rate")
        self._bytes += len(data)
        size = self.chunk_samples * BYTES_PER_SAMPLE
        count, self._bytes = divmod(self._bytes, size)
        self.samples += count * self.chunk_samples
        return [self.chunk_samples] * count

    def finish(self) -> list[int]:
        """The last, shorter chunk, if there is one."""
        if not self._head_done and self._head:
            head, self._head, self._head_done = self._head, b"", True
            if not head.startswith(b"RIFF"):
                return self.feed(head) + self.finish()
            raise AudioError("the WAV header is not complete: there is no data part in it")
        samples, self._bytes = self._bytes // BYTES_PER_SAMPLE, 0
        self.samples += samples
        return [samples] if samples else []

    def _strip_header(self, data: bytes) -> bytes:
        self._head += data
        if not b"RIFF".startswith(self._head[:4]):
            return self._take_head(0)
        if len(self._head) < 12:
            return b""
        if self._head[8:12] != b"WAVE":
            raise AudioError("the audio's RIFF header is not WAVE: send 16-bit mono PCM or a WAV file")
        position = 12
        while position + 8 <= len(self._head):
            name, size = struct.unpack_from("<4sI", self._head, position)
            position += 8
            if name == b"data":
                return self._take_head(position)
            if name == b"fmt ":
                if len(self._head) < position + 16:
                    break
                self._read_format(position)
            position += size + size % 2
        if len(self._head) > LARGEST_HEADER:
            raise AudioError(f"no data part in the first {LARGEST_HEADER} bytes of the WAV file")
        return b""

    def _take_head(self, position: int) -> bytes:
        data, self._head, self._head_done = self._head[position:], b"", True
        return data

    def _read_format(self, position: int) -> None:
        encoding, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", self._head, position)
        if encoding not in (1, 0xFFFE) or bits != 16 or channels != 1 or not rate:
            raise AudioError(
                f"the WAV file has {channels} channels of {bits} bits, format {encoding}: send 16-bit mono"
            )
        self.sample_rate = rate
