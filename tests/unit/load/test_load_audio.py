"""Audio: what is read, what is refused, how it is joined and cut."""

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.load_audio import (
    Audio,
    AudioError,
    Clip,
    cut_chunks,
    read_audio,
    stream_samples,
    wav_files,
)

LETTERS = Audio((Clip("a", b"aaaa"), Clip("b", b"bb"), Clip("c", b"cccccc")), 1)


def test_a_folder_gives_its_wav_files_by_name(tmp_path, make_tone):
    for name in ("b.wav", "a.WAV", "notes.txt"):
        make_tone(tmp_path / name, 0.01)
    assert [path.rsplit("/", 1)[1] for path in wav_files([str(tmp_path)])] == ["a.WAV", "b.wav"]


def test_clips_keep_rate_and_samples(tmp_path, make_tone):
    audio = read_audio([make_tone(tmp_path / "1.wav", 0.5, 8000), make_tone(tmp_path / "2.wav", 0.25, 8000)])
    assert (audio.rate, audio.seconds, len(audio.clips)) == (8000, 0.75, 2)


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda folder, tone: [], "no audio is named"),
        (lambda folder, tone: [str(folder / "none")], "neither a file nor a folder"),
        (lambda folder, tone: [str(folder)], "no .wav file"),
        (lambda folder, tone: [tone(folder / "a.wav", channels=2)], "2 channel(s) of 16 bits"),
        (lambda folder, tone: [tone(folder / "a.wav", width=1)], "1 channel(s) of 8 bits"),
        (lambda folder, tone: [tone(folder / "a.wav", 0)], "no samples"),
        (lambda folder, tone: [tone(folder / "a.wav"), tone(folder / "b.wav", rate=8000)], "same rate"),
    ],
)
def test_audio_that_cannot_be_used_is_named(tmp_path, make_tone, prepare, said):
    with pytest.raises(AudioError, match=said.replace("(", r"\(").replace(")", r"\)")):
        read_audio(prepare(tmp_path, make_tone))


def test_a_file_that_is_no_wav_is_named(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"ID3 this is an mp3")
    with pytest.raises(AudioError, match=r"a\.wav cannot be read as wav"):
        read_audio([str(path)])


@pytest.mark.parametrize(
    ("first", "seconds", "expected"),
    [
        (0, 2, b"aaaa"),
        (0, 1, b"aa"),
        (0, 3, b"aaaabb"),
        (1, 4, b"bbcccccc"),
        (2, 8, b"ccccccaaaabbcccc"),
        (4, 1, b"bb"),
    ],
)
def test_clips_are_joined_round_and_round(first, seconds, expected):
    assert stream_samples(LETTERS, first, seconds) == expected


@pytest.mark.parametrize(("samples", "sizes"), [(5120 * 3, [5120] * 3), (5120 + 10, [5120, 10]), (4, [4]), (0, [])])
def test_chunks_have_one_size_but_the_last(samples, sizes):
    chunks = cut_chunks(bytes(samples), 16000, 160)
    assert [len(chunk) for chunk in chunks] == sizes
