"""Both engines, compared with what transformers and faster-whisper themselves make of the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from faster_whisper import WhisperModel

from models.whisperers import CARELESS, RATE, Load, chirps, floats, hear

START = [50258, 50259, 50359]  # <|startoftranscript|><|en|><|transcribe|>
END, NO_TIMES = 50257, 50363


def window(folder: Path, seed: int = 0) -> Any:
    extractor = hf.WhisperFeatureExtractor.from_pretrained(folder)
    return extractor(floats(chirps(30, seed)), sampling_rate=RATE, return_tensors="np").input_features


def windows(folder: Path, count: int) -> Any:
    return np.concatenate([window(folder, seed) for seed in range(count)])


def never(folder: Path) -> list[int]:
    tokens: list[int] = hf.GenerationConfig.from_pretrained(folder).suppress_tokens
    return tokens


# ── transformers ──────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("seed", range(4))
def test_tokens_are_those_of_transformers(random: Path, load: Load, seed: int) -> None:
    engine = load(random, engine="transformers").engine
    features = window(random, seed)
    (found,) = engine.generate(
        engine.encode(features), [START], beam_size=1, suppress_tokens=never(random), max_initial_timestamp_index=50
    )
    model = hf.WhisperForConditionalGeneration.from_pretrained(random).eval()
    model.generation_config.max_length = None
    expected = model.generate(
        torch.from_numpy(features),
        language="en",
        task="transcribe",
        return_timestamps=True,
        num_beams=1,
        max_new_tokens=224,
        force_unique_generate_call=True,
    )[0].tolist()
    assert expected[:3] == START
    text = expected[3:]
    text = text[: text.index(END)] if END in text else text
    assert found.sequences_ids[0] == text
    assert len(text) > 5


def test_a_score_is_the_sum_of_the_log_probabilities_of_what_the_rules_leave(random: Path, load: Load) -> None:
    engine = load(random, engine="transformers").engine
    encoded = engine.encode(window(random))
    prompt = [*START, NO_TIMES]  # without times, the rules are the tokens that are left
    model = hf.WhisperForConditionalGeneration.from_pretrained(random).eval()
    left = [*range(300, 320), END]  # so few that a sentence ends soon
    never = sorted({*range(model.config.vocab_size)} - {*left})
    asked: dict[str, Any] = {"suppress_tokens": never, "suppress_blank": False}
    torch.manual_seed(0)
    results = [
        engine.generate(encoded, [prompt], beam_size=1, **asked)[0],
        engine.generate(encoded, [prompt], beam_size=4, **asked)[0],
        engine.generate(encoded, [prompt], beam_size=1, num_hypotheses=4, sampling_topk=0, **asked)[0],
    ]
    pairs = [pair for each in results for pair in zip(each.sequences_ids, each.scores, strict=True)]
    assert len({len(text) for text, _ in pairs}) > 2
    for text, score in pairs:
        tokens = torch.tensor([[*prompt, *text, END]])
        with torch.no_grad():
            logits = model(input_features=torch.from_numpy(window(random)), decoder_input_ids=tokens).logits[0]
        logits[:, never] = -torch.inf
        written = tokens[0, len(prompt) :].tolist()[: 224 if len(text) == 224 else None]
        each = logits.log_softmax(-1)[len(prompt) - 1 : -1][range(len(written)), written]
        assert score * max(len(text), 1) == pytest.approx(each.sum().item(), rel=1e-3)


def test_languages_are_those_of_transformers(random: Path, load: Load) -> None:
    engine = load(random, engine="transformers").engine
    model = hf.WhisperForConditionalGeneration.from_pretrained(random).eval()
    for seed in range(3):
        features = window(random, seed)
        ((best, probability), *_) = engine.detect_language(engine.encode(features))[0]
        token = model.detect_language(torch.from_numpy(features))
        assert engine.languages[best[2:-2]] == token.item()
        assert 0 < probability <= 1


def test_a_text_without_times_is_written_where_the_prompt_says_so(random: Path, load: Load) -> None:
    engine = load(random, engine="transformers").engine
    (found,) = engine.generate(engine.encode(window(random)), [[*START, NO_TIMES]], beam_size=1, suppress_tokens=[-1])
    assert found.sequences_ids[0]
    assert max(found.sequences_ids[0]) < END


# ── CTranslate2 ───────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("beams", [1, 4])
def test_transcripts_are_those_of_faster_whisper(converted: Path, load: Load, beams: int) -> None:
    pcm = chirps(75)
    found = hear(load(converted), pcm, options=CARELESS | {"beam_size": beams}, word_times=True)
    reference = WhisperModel(str(converted), device="cpu", compute_type="float32")
    segments, about = reference.transcribe(
        floats(pcm),
        beam_size=beams,
        word_timestamps=True,
        no_speech_threshold=None,
        log_prob_threshold=None,
        compression_ratio_threshold=None,
    )
    expected = list(segments)
    assert [(each.text, list(each.tokens)) for each in found] == [(each.text, each.tokens) for each in expected]
    assert {each.language for each in found} == {about.language}
    assert len({each.window_start_s for each in found}) > 1
    for one, other in zip(found, expected, strict=True):
        numbers = (one.start_s, one.end_s, one.window_start_s, one.average_logprob, one.compression_ratio)
        others = (
            min(other.start, 75),
            min(other.end, 75),
            other.seek / 100,
            other.avg_logprob,
            other.compression_ratio,
        )
        assert numbers == pytest.approx(others)
        assert one.temperature == other.temperature
        assert one.no_speech_probability == pytest.approx(other.no_speech_prob)
        spoken = [word for word in other.words or () if word.word.strip()]
        assert [(word.start_s, word.end_s) for word in one.words] == [
            (min(word.start, 75), min(word.end, 75)) for word in spoken
        ]
        assert all(its.word.strip().startswith(mine.text) for mine, its in zip(one.words, spoken, strict=True))


def test_stretches_together_are_those_of_faster_whisper(converted: Path, load: Load, long_speech: bytes) -> None:
    from faster_whisper import BatchedInferencePipeline

    found = hear(load(converted), long_speech, options={"batched": True, "beam_size": 1})
    reference = WhisperModel(str(converted), device="cpu", compute_type="float32")
    segments, _ = BatchedInferencePipeline(reference).transcribe(
        floats(long_speech), beam_size=1, without_timestamps=False
    )
    length_s = len(long_speech) / 2 / RATE
    cut = [(each.text, min(each.start, length_s), min(each.end, length_s)) for each in segments]
    expected = [(text, round(start_s, 2), round(end_s, 2)) for text, start_s, end_s in cut]
    assert len(expected) > 1
    assert [(each.text, round(each.start_s, 2), round(each.end_s, 2)) for each in found] == expected


# ── both ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("beams", [1, 3])
def test_the_engines_write_the_same(random: Path, converted: Path, load: Load, beams: int) -> None:
    one, other = load(random, engine="transformers").engine, load(converted).engine
    assert (one.is_multilingual, one.n_mels, one.languages) == (other.is_multilingual, other.n_mels, other.languages)
    features = windows(random, 2)
    options = {"beam_size": beams, "suppress_tokens": never(random), "return_scores": True, "length_penalty": 1}
    found, expected = (
        engine.generate(engine.encode(features), [START, START], return_no_speech_prob=True, **options)
        for engine in (one, other)
    )
    for mine, its in zip(found, expected, strict=True):
        assert mine.no_speech_prob == pytest.approx(its.no_speech_prob, rel=1e-3)
        assert mine.sequences_ids[0] == its.sequences_ids[0]
        assert mine.scores[0] == pytest.approx(its.scores[0], rel=1e-3)


def test_the_engines_align_alike(random: Path, converted: Path, load: Load) -> None:
    features, texts = windows(random, 2), [[300, 301, 302, 400, 500], [700, 600, 800]]
    found, expected = (
        engine.align(engine.encode(features), START, texts, 2000, median_filter_width=7)
        for engine in (load(random, engine="transformers").engine, load(converted).engine)
    )
    for mine, its in zip(found, expected, strict=True):
        assert mine.text_token_probs == pytest.approx(its.text_token_probs, rel=1e-3)
        # Each token begins in the same frame, but for ties.
        begins, others = (dict(reversed(each.alignments)) for each in (mine, its))
        assert [begins[token] for token in sorted(begins)] == pytest.approx([others[t] for t in sorted(others)], abs=2)


def test_the_engines_hear_the_same_languages(random: Path, converted: Path, load: Load) -> None:
    features = windows(random, 2)
    one, other = (
        engine.detect_language(engine.encode(features))
        for engine in (load(random, engine="transformers").engine, load(converted).engine)
    )
    for mine, its in zip(one, other, strict=True):
        assert [code for code, _ in mine[:5]] == [code for code, _ in its[:5]]
        assert [share for _, share in mine] == pytest.approx([share for _, share in its], rel=1e-3)


def test_sentences_drawn_at_random_come_best_first(random: Path, load: Load) -> None:
    engine = load(random, engine="transformers").engine
    torch.manual_seed(0)
    (found,) = engine.generate(
        engine.encode(window(random)),
        [START],
        beam_size=1,
        num_hypotheses=4,
        sampling_topk=0,
        sampling_temperature=1.0,
        suppress_tokens=never(random),
    )
    assert len(found.sequences_ids) == len(found.scores) == 4
    assert len({tuple(tokens) for tokens in found.sequences_ids}) == 4
    assert found.scores == sorted(found.scores, reverse=True)
