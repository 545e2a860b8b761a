"""Many answers decoded together: transformers' continuous batching, joined and left at any token."""

import asyncio
import itertools
import logging
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
import torch
from msgspec import Struct
from transformers import AttentionInterface, GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

from yapit import BackendError, OutOfMemoryError
from yapit_plugin_hf_generic.generating.attending import attend
from yapit_plugin_hf_generic.generating.picking import Picker, pick

_PAGE = 128  # tokens of a page of the cache
_STOP_S = 5.0
_PROBE = 12  # tokens, of which a model is asked for half as many more
_PROBE_S = 300.0
_UNSUITED = {"linear_attention", "mamba", "recurrent", "conv", "chunked_attention", "hybrid"}
_log = structlog.get_logger(__name__)


class Room(Struct, frozen=True, kw_only=True):
    """How much is decoded at once.

    Args:
        answers: at most.
        cache_tokens: of all of them together, prompts included.
        step_tokens: that one step reads; longer prompts take several.
    """

    answers: int
    cache_tokens: int
    step_tokens: int


class Batch:
    """The answers of one loaded model.

    Args:
        model: a causal language model.
        room: for how many.
    """

    def __init__(self, model: Any, room: Room) -> None:
        self.room = room
        self._model = model
        self._names = itertools.count()
        self._starting = threading.Lock()
        self._manager: Any = None
        if model.device.type == "cpu":
            AttentionInterface.register("sdpa", attend)
        if model.config._attn_implementation == "eager":  # noqa: SLF001 - transformers has no other way to ask
            model.set_attn_implementation("paged|eager")
        self._start()

    @property
    def limit(self) -> int:
        """Tokens that one answer and its prompt may have together, as far as the cache goes."""
        return self.room.cache_tokens

    async def tokens(
        self, prompt: Sequence[int], picker: Picker, *, max_tokens: int, ends: Sequence[int]
    ) -> AsyncGenerator[list[int], None]:
        """Yield the tokens of one answer as they come, the one that ended it included.

        Raises:
            OutOfMemoryError: the device had no room.
            BackendError: the model failed.
        """
        manager = self._running()
        name = f"answer-{next(self._names)}"
        news: asyncio.Queue[Any] = asyncio.Queue()
        manager.register_result_handler(name, news.put_nowait)
        wish = {} if picker.idle else {"picker": picker}
        known = 0
        done = False
        try:
            ids = list(prompt)
            added = manager.add_request(
                ids, request_id=name, max_new_tokens=max_tokens, streaming=True, eos_token_id=list(ends), **wish
            )
            # One that comes while the thread ends is taken, and never looked at.
            if added is None or manager.background_thread_status.can_accept_new_requests() is not None:
                raise BackendError("The model stopped; the next request starts it again.")
            while not done:
                latest = await news.get()
                while not news.empty():
                    latest = news.get_nowait()
                done = latest.is_finished()
                if latest.error is not None:
                    raise _failure(str(latest.error))
                fresh = latest.generated_tokens[known:]
                known += len(fresh)
                if fresh:
                    yield fresh
        finally:
            if not done:
                manager.cancel_request(name)
            with manager.output_router._lock:  # noqa: SLF001 - a request that is cancelled is never cleaned up otherwise
                manager.output_router.result_handlers.pop(name, None)

    def agrees(self) -> bool:
        """Tell whether a few tokens are those that the model chooses without pages: not every attention can be paged.

        The tokens need not be the same, since the numbers differ in their last bits; but each must be about as likely.
        """
        manager = self._running()
        prompt = [token % self._model.config.get_text_config().vocab_size for token in range(5, 5 + _PROBE)]
        manager.add_request(prompt, request_id="probe", max_new_tokens=_PROBE // 2, eos_token_id=[])
        found = manager.get_result(timeout=_PROBE_S)
        if found is None or found.error is not None:
            _log.warning("batch_unfit", reason="no answer" if found is None else found.error)
            return False
        with self.paused(), torch.inference_mode():
            whole = torch.tensor([[*prompt, *found.generated_tokens[:-1]]], device=self._model.device)
            rows = self._model(input_ids=whole).logits[0, len(prompt) - 1 :].float()
        chosen = rows.gather(1, torch.tensor(found.generated_tokens, device=rows.device).unsqueeze(1)).squeeze(1)
        return bool((rows.max(-1).values - chosen <= rows.std(-1) / 4).all())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the model be used for something else; blocks until the step that runs is over."""
        with self._running().pause():
            yield

    def close(self) -> None:
        """End the thread and free the cache; answers that still run fail."""
        if self._manager is not None and self._manager.is_running():
            self._manager.stop(block=True, timeout=_STOP_S, hard_stop=True)
        self._manager = None

    def _running(self) -> Any:
        """Return what decodes; if a failure has ended it, a new one."""
        with self._starting:
            refusal = self._manager.background_thread_status.can_accept_new_requests()
            if refusal is not None or not self._manager.is_running():
                _log.warning("batch_restarted", reason=refusal)
                self._manager.join(0.0, _STOP_S)
                self._start()
            return self._manager

    def _start(self) -> None:
        # It writes to standard error by itself, and of what is no trouble.
        speaking = logging.getLogger("ContinuousBatchingLogger")
        speaking.handlers.clear()
        speaking.setLevel(logging.ERROR)
        # Every answer brings its own end, length and picker; what is not picked is the likeliest.
        config = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=1)
        batching = ContinuousBatchingConfig(
            page_size=_PAGE,
            num_blocks=max(2, -(-self.room.cache_tokens // _PAGE)),
            max_batch_tokens=self.room.step_tokens,
            max_requests_per_batch=self.room.answers,
            use_async_batching=False,
            use_cuda_graph=False,
        )
        manager = self._model.init_continuous_batching(generation_config=config, continuous_batching_config=batching)
        chain = manager.logit_processor
        chain.logits_processor.insert(0, _Pick())
        chain.tensors_required += 1
        chain._retrieve_processors_kwargs()  # noqa: SLF001 - pinned in pyproject.toml, and covered by tests
        chain.do_processing = True
        # It runs without gradients; without their bookkeeping too, a step of a small model takes 2 % less.
        manager._run_generation_loop = torch.inference_mode()(manager._run_generation_loop)  # noqa: SLF001 - likewise
        manager.start()
        self._manager = manager


class _Pick(ContinuousBatchingLogitsProcessor):  # type: ignore[misc]  # transformers is not typed
    """Lets each request's own picker choose in its row."""

    supported_kwargs = {"picker": object}  # noqa: RUF012 - as the class above declares it
    ignored_kwargs = ()

    def __init__(self) -> None:
        self._wanted: list[tuple[int, Picker, Sequence[int]]] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Need no tensor."""
        int32_tensor.fill_(0)

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Note the rows that have a picker."""
        self._wanted = []
        for row, each in enumerate(requests_with_new_token):
            picker = each.state.logit_processor_kwargs.get("picker")
            if picker is not None:
                self._wanted.append((row, picker, _generated(each.state)))
        return torch.zeros(len(requests_with_new_token), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - its signature
        """Return the scores with the choices made."""
        return pick(scores, self._wanted)


def suits(model: Any) -> bool:
    """Tell whether a model's attention can be paged; others are decoded one after the other."""
    config = model.config.get_text_config()
    if config.is_encoder_decoder or not getattr(model, "_supports_sdpa", False):
        return False
    kinds = set(getattr(config, "layer_types", None) or ())
    return not kinds & _UNSUITED and not getattr(config, "position_embedding_type", "").startswith("alibi")


def _generated(state: Any) -> Sequence[int]:
    """Return all tokens of an answer; one that had to make room for others has some of them in its prompt."""
    begun = state._true_initial_tokens  # noqa: SLF001 - pinned
    tokens: list[int] = state.generated_tokens
    return [*state.initial_tokens[begun:], *tokens] if begun else tokens


def _failure(said: str) -> Exception:
    if "memory" in said.casefold():
        return OutOfMemoryError("The model ran out of memory.")
    _log.error("batch_failed", reason=said)
    return BackendError("The model failed; the server's log says more.")
