"""When each token was said: where the decoder looked while it wrote it."""

from typing import Any

import torch
from msgspec import Struct
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter

from yapit_plugin_whisper.engines.facts import Alignment


class Timing(Struct, frozen=True, kw_only=True):
    """How a text is aligned.

    Args:
        start: tokens before the text.
        end: the token after it.
        heads: layers and heads that follow the sound.
        width: of the median filter, in frames.
    """

    start: list[int]
    end: int
    heads: list[tuple[int, int]]
    width: int


def aligned(model: Any, window: torch.Tensor, text: list[int], frames: int, timing: Timing) -> Alignment:
    """Return the frames of 20 ms in which each token of `text` was said, out of the first `frames` of them."""
    tokens = [*timing.start, *text, timing.end]
    made = _attending(model, window, tokens)
    before = len(timing.start)
    shares = made.logits[0, before - 1 : -2, : timing.end].float().softmax(-1)
    likely = shares[range(len(text)), text].tolist() if text else []
    frames = min(frames, window.shape[1])
    seen = torch.stack([made.cross_attentions[layer][0, head, :, :frames] for layer, head in timing.heads]).float()
    # As if it had been looked at what is no padding alone.
    seen = seen / seen.sum(-1, keepdim=True).clamp(min=torch.finfo(seen.dtype).tiny)
    spread, mean = torch.std_mean(seen, dim=-2, keepdim=True, unbiased=False)
    matrix = _median_filter((seen - mean) / spread.clamp(min=1e-9), timing.width).mean(0)
    rows, columns = _dynamic_time_warping(-matrix[before - 1 : -1].cpu().double().numpy())
    return Alignment(alignments=list(zip(rows.tolist(), columns.tolist(), strict=True)), text_token_probs=likely)


def _attending(model: Any, window: torch.Tensor, tokens: list[int]) -> Any:
    """Return the logits of each token and what each head looked at, which only the plain attention tells."""
    usual = model.config._attn_implementation  # noqa: SLF001 - transformers has no other name for it
    model.set_attn_implementation("eager")
    try:
        return model(
            encoder_outputs=BaseModelOutput(last_hidden_state=window),
            decoder_input_ids=torch.tensor([tokens], device=window.device),
            output_attentions=True,
            use_cache=False,
        )
    finally:
        model.set_attn_implementation(usual)
