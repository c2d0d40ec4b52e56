# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Audio for the load: 16-bit mono wav files, joined end to end and cut into chunks."""

from __future__ import annotations

import os
import wave
from dataclasses import dataclass

# More audio than this gives no more variety; it would only fill the memory.
MOST_BYTES = 64 * 1024 * 1024


class AudioError(Exception):
    """The audio cannot be used; the text says why and what would be right."""


@dataclass(frozen=True)
class Clip:
    path: str
    samples: bytes


@dataclass(frozen=True)
class Audio:
    """Clips that share one sample rate."""

    clips: tuple[Clip, ...]
    rate: int

    @property
    def seconds(self) -> float:
        return sum(len(clip.samples) for clip in self.clips) / 2 / self.rate


def wav_files(paths: list[str]) -> list[str]:
    """Replace each folder by the wav files in it, sorted by name; complain about what is not there."""
    files: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            found = sorted(name for name in os.listdir(path) if name.lower().endswith(".wav"))
            if not found:
                raise AudioError(f"the folder {path} holds no .wav file; 16-bit mono wav files are needed")
            files += [os.path.join(path, name) for name in found]
        elif os.path.isfile(path):
            files.append(path)
        else:
            raise AudioError(f"{path} is neither a file nor a folder; name wav files or a folder of them")
    if not files:
        raise AudioError("no audio is named; name wav files or a folder of them")
    return files


def read_audio(paths: list[str]) -> Audio:
    """Read the wav files, up to a bounded size."""
    clips: list[Clip] = []
    rate, size = 0, 0
    for path in wav_files(paths):
        clip_rate, samples = _read_wav(path)
        if rate and clip_rate != rate:
            raise AudioError(
                f"{path} has {clip_rate} samples a second, {clips[0].path} has {rate}; "
                "all files must have the same rate"
            )
        rate = clip_rate
        clips.append(Clip(path, samples))
        size += len(samples)
        if size >= MOST_BYTES:
            break
    return Audio(tuple(clips), rate)


def _read_wav(path: str) -> tuple[int, bytes]:
    try:
        with wave.open(path, "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            samples = file.readframes(MOST_BYTES // (channels * width))
    except (wave.Error, EOFError, OSError) as error:
        raise AudioError(f"{path} cannot be read as wav ({error}); 16-bit mono PCM wav is needed") from error
    if channels != 1 or width != 2:
        raise AudioError(f"{path} has {channels} channel(s) of {8 * width} bits; 16-bit mono PCM is needed")
    if not samples:
        raise AudioError(f"{path} holds no samples; name a wav file with speech")
    return rate, samples


def stream_samples(audio: Audio, first_clip: int, seconds: float) -> bytes:
    """Join clips, from *first_clip* on and round again, until the audio lasts *seconds*."""
    wanted = 2 * round(seconds * audio.rate)
    parts: list[bytes] = []
    have, index = 0, first_clip
    while have < wanted:
        samples = audio.clips[index % len(audio.clips)].samples[: wanted - have]
        parts.append(samples)
        have += len(samples)
        index += 1
    return b"".join(parts)


def cut_chunks(samples: bytes, rate: int, chunk_ms: int) -> list[bytes]:
    """Cut samples into chunks of one duration; only the last may be shorter."""
    size = 2 * (rate * chunk_ms // 1000)
    return [samples[start : start + size] for start in range(0, len(samples), size)]
