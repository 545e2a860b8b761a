"""One answer after the other: for models whose attention cannot be paged, and for prompts with images."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from yapit.settling import settle
from yapit_plugin_hf_generic.generating.picking import Picker, pick


class Alone:
    """The answers of one loaded model, each decoded by `generate`.

    Args:
        model: any model with `generate`.
        limit: tokens that an answer and its prompt may have together.
    """

    def __init__(self, model: Any, limit: int) -> None:
        self.limit = limit
        self._model = model
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decoding")

    async def tokens(
        self,
        prompt: Sequence[int],
        picker: Picker,
        *,
        max_tokens: int,
        ends: Sequence[int],
        inputs: dict[str, Any] | None = None,
    ) -> AsyncGenerator[list[int], None]:
        """Yield the tokens of one answer as they come, the one that ended it included.

        Args:
            prompt: the tokens to read.
            picker: chooses.
            max_tokens: of the answer.
            ends: tokens that end it.
            inputs: further ones of the model, such as the pixels of images.
        """
        model = self._model
        encodes = model.config.is_encoder_decoder
        run = _Run(model, picker, begun=1 if encodes else len(prompt))
        own = model.generation_config
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_tokens,
            eos_token_id=list(ends) or None,
            pad_token_id=ends[0] if ends else 0,
            bos_token_id=own.bos_token_id,
            decoder_start_token_id=own.decoder_start_token_id,
        )
        work = asyncio.get_running_loop().run_in_executor(
            self._thread, partial(run.generate, prompt, inputs or {}, config)
        )
        try:
            while (token := await run.news.get()) is not None:
                yield [token]
        finally:
            run.stopped = True
            await settle(work)
        work.result()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Return at once: the model has one request at a time."""
        yield

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True)


class _Run:
    """One call of `generate`, on the thread that decodes."""

    def __init__(self, model: Any, picker: Picker, begun: int) -> None:
        self.news: asyncio.Queue[int | None] = asyncio.Queue()
        self.stopped = False
        self._loop = asyncio.get_running_loop()
        self._model = model
        self._picker = picker
        self._begun = begun  # where the answer begins in what `generate` shows

    def generate(self, ids: Sequence[int], inputs: dict[str, Any], config: GenerationConfig) -> None:
        """Decode until the end; each token goes to `news`, and None after the last."""
        try:
            if not self.stopped:
                self._generate(ids, inputs, config)
        finally:
            self._loop.call_soon_threadsafe(self.news.put_nowait, None)

    def picked(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores with the choice made."""
        if self._picker.idle:
            return scores
        generated = ids[0, self._begun :].tolist()
        return pick(scores.float(), [(0, self._picker, generated)])

    def tell(self, token: int) -> None:
        """Hand a token to the reader."""
        self._loop.call_soon_threadsafe(self.news.put_nowait, token)

    def _generate(self, ids: Sequence[int], inputs: dict[str, Any], config: GenerationConfig) -> None:
        model = self._model
        prompt = torch.tensor([list(ids)], device=model.device)
        further = {
            name: value.to(model.device, model.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor) and name not in ("input_ids", "attention_mask")
        }
        with torch.inference_mode():
            model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                **further,
                generation_config=config,
                logits_processor=LogitsProcessorList([_Chooser(self)]),
                stopping_criteria=StoppingCriteriaList([_Stopper(self)]),
                streamer=_Streamer(self),
            )


class _Chooser(LogitsProcessor):  # type: ignore[misc]  # transformers is not typed
    def __init__(self, run: _Run) -> None:
        self._run = run

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return self._run.picked(input_ids, scores)


class _Stopper(StoppingCriteria):  # type: ignore[misc]  # likewise
    def __init__(self, run: _Run) -> None:
        self._run = run

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002 - its signature
        return torch.full((input_ids.shape[0],), self._run.stopped, device=input_ids.device)


class _Streamer(BaseStreamer):  # type: ignore[misc]  # likewise
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._prompt = True  # the first that comes is the prompt

    def put(self, value: torch.Tensor) -> None:
        if self._prompt:
            self._prompt = False
            return
        self._run.tell(int(value.reshape(-1)[0]))

    def end(self) -> None:
        pass
