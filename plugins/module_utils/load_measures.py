# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is measured on one stream. Pure: times come in as numbers.

The latency of a result is the time from sending the newest chunk that the result covers to receiving the
result; the server says with ``audio_processed`` how many seconds of the stream a result covers. This is the
latency that NVIDIA's own client means: from a chunk sent to its response. A result that covers several
chunks at once gives one latency; if it is later than the objective, each chunk that it covers for the first
time counts as late. A result without ``audio_processed`` is taken to cover all chunks sent so far.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# audio_processed is a 32-bit float: 0.32 arrives as 0.3199999928.
ROUNDING = 1e-3


def covered_chunks(audio_processed: float, chunk_seconds: float, chunks: int, total_seconds: float) -> int:
    """Return how many chunks of a stream lie whole within the audio that a result covers."""
    if audio_processed >= total_seconds - ROUNDING:
        return chunks
    return min(chunks, int((audio_processed + ROUNDING) / chunk_seconds))


@dataclass
class Window:
    """What all streams measured since the last record was written."""

    chunks_sent: int = 0
    chunks_answered: int = 0
    chunks_late: int = 0
    latency_ms: list[float] = field(default_factory=list)
    pacing_lag_ms: list[float] = field(default_factory=list)


class StreamMeasure:
    """Follows one stream: chunks sent, results received."""

    def __init__(self, chunks: int, chunk_seconds: float, total_seconds: float, objective_ms: float, window: Window):
        self.chunks = chunks
        self.chunk_seconds = chunk_seconds
        self.total_seconds = total_seconds
        self.objective_ms = objective_ms
        self.window = window
        self.sent_at: list[float] = []
        self.answered = 0
        self.late = 0
        self.results = 0
        self.first_response_ms: float | None = None
        self.last_response_at: float | None = None

    def sent(self, due: float, now: float) -> None:
        """A chunk that was due at one time is handed to the client now."""
        self.sent_at.append(now)
        self.window.chunks_sent += 1
        self.window.pacing_lag_ms.append(round(max(0.0, now - due) * 1000, 1))

    def received(self, now: float, audio_processed: float) -> None:
        """A result arrived that covers the stream up to *audio_processed* seconds (0: not said)."""
        self.results += 1
        self.last_response_at = now
        if not self.sent_at:
            return
        if self.first_response_ms is None:
            self.first_response_ms = round((now - self.sent_at[0]) * 1000, 1)
        covered = len(self.sent_at)
        if audio_processed > 0:
            covered = min(covered, covered_chunks(audio_processed, self.chunk_seconds, self.chunks, self.total_seconds))
        new = covered - self.answered
        if new <= 0:
            return
        self._count(new, now - self.sent_at[covered - 1])

    def text_answered(self, sent: float, first: float, now: float) -> None:
        """A text, sent at one time, had its first answer at another, and is done now."""
        self.results += 1
        self.last_response_at = now
        if self.first_response_ms is None:
            self.first_response_ms = round((first - sent) * 1000, 1)
        self._count(1, first - sent)

    def _count(self, chunks: int, seconds: float) -> None:
        """So many chunks have their answer now, the newest after so many seconds."""
        self.answered += chunks
        self.window.chunks_answered += chunks
        latency = seconds * 1000
        self.window.latency_ms.append(round(latency, 1))
        if latency > self.objective_ms:
            self.late += chunks
            self.window.chunks_late += chunks

    @property
    def all_sent(self) -> bool:
        return len(self.sent_at) == self.chunks

    @property
    def final_ms(self) -> float | None:
        """The time from the last chunk to the last result; none while the stream is not sent whole."""
        if not self.all_sent or self.last_response_at is None:
            return None
        return round((self.last_response_at - self.sent_at[-1]) * 1000, 1)

    @property
    def real_time_factor(self) -> float | None:
        """The time from the first chunk to the last result, for each second of audio; none without a whole stream.

        Audio is sent at the pace of speech, so a server that keeps up comes to a little more than 1.
        """
        if not self.all_sent or self.last_response_at is None or not self.total_seconds:
            return None
        return round((self.last_response_at - self.sent_at[0]) / self.total_seconds, 4)
