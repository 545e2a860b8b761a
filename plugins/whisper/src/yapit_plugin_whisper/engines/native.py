"""Whisper by transformers, asked as faster-whisper asks CTranslate2."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers.generation.utils import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput

from yapit_plugin_whisper.engines.aligning import Timing, aligned
from yapit_plugin_whisper.engines.facts import Alignment, Facts, Features, Result
from yapit_plugin_whisper.engines.rules import Rules


class TorchWhisper:
    """A model of transformers behind the interface of `ctranslate2.models.Whisper`.

    Args:
        facts: about the model.
        model: a `WhisperForConditionalGeneration`, on its device.
        check: raises where nobody waits any more; asked before each layer.
    """

    def __init__(self, facts: Facts, model: Any, check: Callable[..., None]) -> None:
        own = model.generation_config
        # Its own rules would be added to those of each call.
        model.generation_config = transformers.GenerationConfig()
        self._model = model
        self._rules = Rules.of(facts, own)
        self._heads = _alignment_heads(model.config, getattr(own, "alignment_heads", None))
        self.languages = facts.languages()
        self.is_multilingual = bool(self.languages)
        self.device: str = model.device.type
        self.device_index = [model.device.index or 0]
        self.n_mels: int = model.config.num_mel_bins
        for module in model.modules():
            if isinstance(module, torch.nn.ModuleList):
                for layer in module:
                    layer.register_forward_pre_hook(check)

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # torch's types are not looked at
    def encode(self, features: Features, *, to_cpu: bool = False) -> torch.Tensor:
        """Return what the encoder makes of windows, [windows, mels, frames]."""
        sound = torch.from_numpy(features).to(self._model.device, self._model.dtype)
        found: torch.Tensor = self._model.get_encoder()(sound).last_hidden_state
        return found.cpu() if to_cpu else found

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # torch's types are not looked at
    def generate(  # noqa: PLR0913 - as CTranslate2 has it
        self,
        encoded: torch.Tensor,
        prompts: list[list[int]],
        *,
        beam_size: int = 5,
        patience: float = 1,
        num_hypotheses: int = 1,
        length_penalty: float = 1,
        repetition_penalty: float = 1,
        no_repeat_ngram_size: int = 0,
        max_length: int = 448,
        suppress_blank: bool = True,
        suppress_tokens: list[int] | tuple[int, ...] | None = (-1,),
        max_initial_timestamp_index: int = 50,
        sampling_topk: int = 1,
        sampling_temperature: float = 1,
        **_: bool,
    ) -> list[Result]:
        """Return what is written for each window; the prompts are of one length.

        Args:
            encoded: the windows.
            prompts: of each.
            beam_size: sentences that are followed at once; 1 where tokens are drawn at random.
            patience: above 1, better sentences are looked for until there can be none.
            num_hypotheses: sentences that are drawn at random, of which the best comes first.
            length_penalty: exponent of the length that scores are divided by.
            repetition_penalty: makes tokens less likely that were written.
            no_repeat_ngram_size: as many tokens never come twice in the same order.
            max_length: of prompt and text; the text has half of it at most.
            suppress_blank: the text does not begin with a space or its end.
            suppress_tokens: that are never written.
            max_initial_timestamp_index: the latest time a text may begin with.
            sampling_topk: 1 takes the likeliest token, 0 draws from all.
            sampling_temperature: 1 draws tokens as likely as they are.
        """
        prompt = torch.tensor(prompts, device=self._model.device)
        room = min(max_length // 2, max_length - prompt.shape[1])
        draws = sampling_topk != 1
        beams = 1 if draws else beam_size
        never = tuple(suppress_tokens or ())
        rules = self._rules.processors(
            prompts[0], never, max_initial_timestamp_index, begin=suppress_blank, beams=beams
        )
        many = num_hypotheses if draws else 1
        settings = transformers.GenerationConfig(
            max_new_tokens=room,
            eos_token_id=self._rules.end,
            pad_token_id=self._rules.end,
            decoder_start_token_id=self._rules.start,
            num_beams=beams,
            early_stopping=patience <= 1,
            do_sample=draws,
            temperature=sampling_temperature if draws else None,
            top_k=sampling_topk if draws else None,
            num_return_sequences=many,
            length_penalty=length_penalty,
            repetition_penalty=repetition_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size,
            return_dict_in_generate=True,
        )
        made = GenerationMixin.generate(
            self._model,
            encoder_outputs=BaseModelOutput(last_hidden_state=self._here(encoded)),
            decoder_input_ids=prompt,
            generation_config=settings,
            logits_processor=rules,
        )
        sequences = [self._rules.text(row[prompt.shape[1] :].tolist()) for row in made.sequences]
        sums = rules[-1].totals(made.sequences, getattr(made, "beam_indices", None))
        silences = self._no_speech(encoded, prompts)
        results = []
        for number, silence in enumerate(silences):
            rows = range(number * many, (number + 1) * many)
            pairs = [(sums[row] / max(len(sequences[row]), 1) ** length_penalty, sequences[row]) for row in rows]
            pairs.sort(key=lambda pair: -pair[0])
            results.append(
                Result(
                    sequences_ids=[text for _, text in pairs],
                    scores=[score for score, _ in pairs],
                    no_speech_prob=silence,
                )
            )
        return results

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # torch's types are not looked at
    def align(
        self,
        encoded: torch.Tensor,
        start: list[int],
        texts: list[list[int]],
        frames: int | list[int],
        *,
        median_filter_width: int = 7,
    ) -> list[Alignment]:
        """Return when each token of each text was said, and how likely it was."""
        counts = frames if isinstance(frames, list) else [frames] * len(texts)
        timing = Timing(
            start=[*start, self._rules.no_timestamps],
            end=self._rules.end,
            heads=self._heads,
            width=median_filter_width,
        )
        windows = self._here(encoded)
        return [
            aligned(self._model, windows[number : number + 1], text, count // 2, timing)
            for number, (text, count) in enumerate(zip(texts, counts, strict=True))
        ]

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # torch's types are not looked at
    def detect_language(self, encoded: torch.Tensor) -> list[list[tuple[str, float]]]:
        """Return the languages of each window, the likeliest first."""
        codes, tokens = list(self.languages), list(self.languages.values())
        logits = self._logits(encoded, [[self._rules.start]] * len(encoded))[:, -1]
        shares = logits[:, tokens].softmax(-1).tolist()
        rows = (zip(codes, row, strict=True) for row in shares)
        return [sorted(((f"<|{code}|>", share) for code, share in row), key=lambda pair: -pair[1]) for row in rows]

    def _no_speech(self, encoded: torch.Tensor, prompts: list[list[int]]) -> list[float]:
        """Return how likely it is, at the start of each transcript, that nobody speaks."""
        place = prompts[0].index(self._rules.start)
        logits = self._logits(encoded, [prompt[: place + 1] for prompt in prompts])[:, -1]
        found: list[float] = logits.softmax(-1)[:, self._rules.no_speech].tolist()
        return found

    def _logits(self, encoded: torch.Tensor, tokens: list[list[int]]) -> torch.Tensor:
        made = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._here(encoded)),
            decoder_input_ids=torch.tensor(tokens, device=self._model.device),
            use_cache=False,
        )
        found: torch.Tensor = made.logits.float()
        return found

    def _here(self, encoded: torch.Tensor) -> torch.Tensor:
        return encoded.to(self._model.device)


def _alignment_heads(config: Any, named: Any) -> list[tuple[int, int]]:
    """Return the layers and heads that follow the sound: all of the last half where nobody has named any."""
    if named:
        return [(int(layer), int(head)) for layer, head in named]
    layers = range(config.decoder_layers // 2, config.decoder_layers)
    return [(layer, head) for layer in layers for head in range(config.decoder_attention_heads)]
