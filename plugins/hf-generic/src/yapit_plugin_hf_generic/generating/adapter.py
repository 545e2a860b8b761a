"""The adapter that writes: a prompt is read, its answer decoded and taken apart."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import structlog
import torch
from msgspec import Struct
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSeq2SeqLM, AutoTokenizer

from yapit import (
    Context,
    GenerateRequest,
    InvalidInputError,
    Model,
    TextChunk,
    TextGenerator,
)
from yapit_plugin_hf_generic.describing import context_length
from yapit_plugin_hf_generic.generating.alone import Alone
from yapit_plugin_hf_generic.generating.answering import Answer
from yapit_plugin_hf_generic.generating.batching import Batch, suits
from yapit_plugin_hf_generic.generating.chat import Chat, Prompt
from yapit_plugin_hf_generic.generating.decoding import Detokenizer, Stops
from yapit_plugin_hf_generic.generating.grammar import Grammars
from yapit_plugin_hf_generic.generating.options import GenerateOptions
from yapit_plugin_hf_generic.generating.parsing import AnswerParser
from yapit_plugin_hf_generic.generating.picking import Likely, Picker, Sampling
from yapit_plugin_hf_generic.generating.processors import processor_of
from yapit_plugin_hf_generic.generating.room import room
from yapit_plugin_hf_generic.generating.spelling import Spelling
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.options import options_of, settings_of

_log = structlog.get_logger(__name__)
_FALLBACK_CONTEXT = 2048  # tokens, for models that do not say


class _Task(Struct, frozen=True):
    """A request, read: what the token loop is told."""

    prompt: Prompt
    picker: Picker
    max_tokens: int


class HFTextGenerator(TextGenerator):
    """Writes with any model of transformers that generates: many answers at once where its attention allows it."""

    def __init__(self, model: Model, context: Context) -> None:
        options = options_of(model, GenerateOptions)
        loader = Loader(model, context, options)
        seeing = "vision_config" in loader.config
        processor = processor_of(loader) if seeing else None
        self._tokenizer = loader.part(AutoTokenizer) if processor is None else processor.tokenizer
        self._spelling = Spelling(self._tokenizer)
        self._model = loader.weights(AutoModelForImageTextToText if seeing else _auto(loader.config))
        self._ends = _ends(self._model, self._tokenizer)
        text = self._model.config.get_text_config().to_dict()
        known = model.context_length or context_length(text) or _FALLBACK_CONTEXT
        self._chat = Chat(self._tokenizer, processor, settings_of(context), options)
        self._style = self._chat.style
        self._grammars = Grammars(self._tokenizer, self._style, ends=self._ends)
        self._source = self._decoder(options, known, together=not seeing)
        self._limit = min(known, self._source.limit)
        self.max_concurrency = options.max_batch_size if isinstance(self._source, Batch) else 1

    async def generate(self, request: GenerateRequest) -> AsyncIterator[TextChunk]:
        """Yield the answer as it is decoded.

        Raises:
            InvalidInputError: the prompt is too long, or asks for what this model cannot do.
        """
        # Off the event loop, on which the other answers wait: a long prompt takes its time.
        task = await asyncio.to_thread(self._read, request)
        read = len(task.prompt.ids)
        if request.echo:
            yield await asyncio.to_thread(self._echo, task.prompt.ids, request.logprobs)
        detokenizer = Detokenizer(self._tokenizer, self._style.marks)
        parser = AnswerParser(self._style, request, task.prompt.prefix)
        answer = Answer(self._spelling, detokenizer, Stops(request.stop), parser, task.picker)
        reason = "length"
        if task.max_tokens:
            async with aclosing(self._tokens(task)) as arriving:
                async for tokens in arriving:
                    if task.picker.error is not None:
                        raise task.picker.error
                    for chunk in answer.feed(tokens, self._ends):
                        yield chunk
                    if answer.stopped or tokens[-1] in self._ends:
                        reason = "stop"
                        break
        for chunk in answer.end(reason, read):
            yield chunk

    def close(self) -> None:
        """Stop decoding, and let go of the weights."""
        self._source.close()
        del self._model

    def _decoder(self, options: GenerateOptions, context: int, *, together: bool) -> Batch | Alone:
        if together and options.max_batch_size > 1 and suits(self._model):
            batch = Batch(self._model, room(self._model, options, context))
            if batch.agrees():
                return batch
            batch.close()
        _log.info("answers_one_by_one", architecture=type(self._model).__name__)
        return Alone(self._model, context)

    def _tokens(self, task: _Task) -> Any:
        prompt = task.prompt
        if isinstance(self._source, Alone):
            return self._source.tokens(
                prompt.ids, task.picker, max_tokens=task.max_tokens, ends=self._ends, inputs=prompt.inputs
            )
        return self._source.tokens(prompt.ids, task.picker, max_tokens=task.max_tokens, ends=self._ends)

    def _read(self, request: GenerateRequest) -> _Task:
        prompt = self._chat.prompt(request)
        left = self._limit - len(prompt.ids)
        param = "messages" if request.prompt is None else "prompt"
        if left < 1 or not prompt.ids:
            message = (
                f"This model's maximum context length is {self._limit} tokens, and the {param} have "
                f"{len(prompt.ids)} tokens; please reduce their length."
            )
            code = "context_length_exceeded" if prompt.ids else "empty_input"
            raise InvalidInputError(message if prompt.ids else f"The {param} are empty.", param=param, code=code)
        self._check_bias(request)
        picker = Picker(
            Sampling.of(request, self._model.generation_config),
            prompt.ids,
            constraint=self._grammars.of(request, prompt.prefix),
            logit_bias=request.logit_bias,
            seed=request.seed,
            logprobs=request.logprobs,
        )
        wanted = left if request.max_tokens is None else min(left, request.max_tokens)
        return _Task(prompt, picker, wanted)

    def _check_bias(self, request: GenerateRequest) -> None:
        size = self._model.config.get_text_config().vocab_size
        wrong = [token for token in request.logit_bias if not 0 <= token < size]
        if wrong:
            message = f"Invalid 'logit_bias': the model has no token {wrong[0]}; its tokens are 0 to {size - 1}."
            raise InvalidInputError(message, param="logit_bias")

    def _echo(self, ids: Sequence[int], logprobs: int | None) -> TextChunk:
        """Return the prompt's text, with the log-probability of each token but the first if they are wanted."""
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if logprobs is None:
            return TextChunk(text=text)
        with self._source.paused(), torch.inference_mode():
            given = torch.tensor([list(ids)], device=self._model.device)
            rows = self._model(input_ids=given).logits[0].float()
        # Nothing was there that could have told the first one.
        known = [
            Likely(math.nan),
            *(Likely.of(row, token, logprobs) for token, row in zip(ids[1:], rows, strict=False)),
        ]
        found = tuple(self._spelling.listed(token, likely) for token, likely in zip(ids, known, strict=True))
        return TextChunk(text=text, logprobs=found)


def generator(model: Model, context: Context) -> TextGenerator:
    """Return the adapter that writes with the model."""
    return HFTextGenerator(model, context)


def _auto(config: dict[str, Any]) -> Any:
    return AutoModelForSeq2SeqLM if config.get("is_encoder_decoder") else AutoModelForCausalLM


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """Return the tokens that end an answer: those of the generation config, and the tokenizer's."""
    own = model.generation_config.eos_token_id
    named = own if isinstance(own, list) else [own]
    return sorted({token for token in (*named, tokenizer.eos_token_id) if isinstance(token, int) and token >= 0})
