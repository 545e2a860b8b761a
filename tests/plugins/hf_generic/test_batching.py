"""Answers that are decoded together are, token by token, what `generate` writes for each alone."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.generation.continuous_batching.requests import RequestState

from live import until
from loops import PATIENCE_S
from models import writers
from yapit import BackendError
from yapit_plugin_hf_generic.generating.alone import Alone
from yapit_plugin_hf_generic.generating.batching import Batch, Room, suits
from yapit_plugin_hf_generic.generating.picking import Picker, Sampling

T = TypeVar("T")
GREEDY = Sampling(temperature=0)
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "llama": writers.llama,
    "qwen3": writers.qwen3,
    "gpt2": writers.gpt2,
    "gemma3": writers.gemma3,
}
ROOM = Room(answers=32, cache_tokens=32 * 256, step_tokens=64)


def load(folder: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa", dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None  # every test says itself what ends an answer
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(FAMILIES[request.param](tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(writers.llama(tmp_path_factory.mktemp("llama")))


@pytest.fixture
def batch(llama: Any) -> Iterator[Batch]:
    made = Batch(llama, ROOM)
    yield made
    made.close()


def run(main: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(PATIENCE_S):
            return await main

    return asyncio.run(bounded())


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    torch.manual_seed(seed)
    return [torch.randint(0, 250, (int(torch.randint(1, 150, ())),)).tolist() for _ in range(count)]


def generated(model: Any, prompt: Sequence[int], length: int) -> list[int]:
    config = GenerationConfig(max_new_tokens=length, do_sample=False, pad_token_id=0)
    ids = torch.tensor([list(prompt)])
    with torch.inference_mode():
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    found: list[int] = whole[0, len(prompt) :].tolist()
    return found


async def answer(
    source: Batch | Alone, prompt: Sequence[int], length: int, picker: Picker | None = None, ends: Sequence[int] = ()
) -> list[int]:
    found: list[int] = []
    chosen = picker or Picker(GREEDY, prompt)
    async with aclosing(source.tokens(prompt, chosen, max_tokens=length, ends=ends)) as arriving:
        async for tokens in arriving:
            found += tokens
    return found


def test_thirty_two_answers_at_once_are_those_of_generate(model: Any) -> None:
    asked = prompts(32)
    lengths = [3 + index % 17 for index in range(32)]
    expected = [generated(model, prompt, length) for prompt, length in zip(asked, lengths, strict=True)]
    made = Batch(model, ROOM)

    async def all_of_them() -> list[list[int]]:
        return await asyncio.gather(*(answer(made, *each) for each in zip(asked, lengths, strict=True)))

    try:
        assert run(all_of_them()) == expected
    finally:
        made.close()


def test_an_answer_that_joins_others_changes_none(llama: Any, batch: Batch) -> None:
    first, *others = prompts(6, seed=1)

    async def joined() -> list[list[int]]:
        begun = asyncio.Event()

        async def early() -> list[int]:
            found: list[int] = []
            async with aclosing(batch.tokens(first, Picker(GREEDY, first), max_tokens=120, ends=())) as arriving:
                async for tokens in arriving:
                    found += tokens
                    begun.set()
            return found

        running = asyncio.create_task(early())
        await begun.wait()
        late = await asyncio.gather(*(answer(batch, prompt, 20) for prompt in others))
        return [await running, *late]

    expected = [generated(llama, first, 120), *(generated(llama, prompt, 20) for prompt in others)]
    assert run(joined()) == expected


def test_an_answer_ends_with_one_of_its_ends(llama: Any, batch: Batch) -> None:
    (prompt,) = prompts(1, seed=2)
    whole = generated(llama, prompt, 30)
    last = next(token for place, token in enumerate(whole) if place > 3 and token not in whole[:place])
    found = run(answer(batch, prompt, 30, ends=[last, 249]))
    assert found == whole[: whole.index(last) + 1]


def test_who_leaves_frees_the_place_and_disturbs_nobody(llama: Any, batch: Batch) -> None:
    asked = prompts(8, seed=3)

    async def some_leave() -> list[list[int]]:
        async def leave(prompt: list[int]) -> list[int]:
            async with aclosing(batch.tokens(prompt, Picker(GREEDY, prompt), max_tokens=1500, ends=())) as arriving:
                return await anext(arriving)

        mixed = [leave(prompt) if place % 2 else answer(batch, prompt, 40) for place, prompt in enumerate(asked)]
        stayed = (await asyncio.gather(*mixed))[::2]
        processor = batch._manager.batch_processor
        assert await asyncio.to_thread(until, lambda: not processor.scheduler.active_requests)
        assert batch._manager.current_batch < 500, "they went on"
        return stayed

    assert run(some_leave()) == [generated(llama, prompt, 40) for prompt in asked[::2]]
    assert batch._manager.output_router.result_handlers == {}


def test_answers_that_do_not_fit_wait_or_begin_again(llama: Any, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = prompts(8, seed=4)
    begun_again = 0
    begin_again = RequestState.create_equivalent_initial_request

    def counted(state: RequestState) -> RequestState:
        nonlocal begun_again
        begun_again += 1
        return begin_again(state)

    monkeypatch.setattr(RequestState, "create_equivalent_initial_request", counted)
    # What was written before counts for a penalty, also after the answer had to make room.
    shy = Sampling(temperature=0, frequency_penalty=2.0)

    async def all_of_them(source: Batch) -> list[list[int]]:
        return await asyncio.gather(*(answer(source, prompt, 150, Picker(shy, prompt)) for prompt in asked))

    expected = run(all_of_them(batch))
    assert not begun_again
    small = Batch(llama, Room(answers=8, cache_tokens=768, step_tokens=64))
    try:
        assert run(all_of_them(small)) == expected
    finally:
        small.close()
    assert begun_again


def test_a_model_that_fails_fails_the_answers_and_is_started_again(
    llama: Any, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    (prompt,) = prompts(1, seed=5)

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the device is lost")

    with monkeypatch.context() as patch:
        patch.setattr(llama, "forward", broken)
        with pytest.raises(BackendError):
            run(answer(batch, prompt, 5))
    assert run(answer(batch, prompt, 5)) == generated(llama, prompt, 5)


def test_a_picker_that_fails_fails_nobody_else(llama: Any, batch: Batch) -> None:
    asked = prompts(3, seed=9)

    class Broken:
        def mask(self, generated: Sequence[int]) -> Any:
            if len(generated) > 3:
                raise ValueError("the grammar is too complex")
            return torch.ones(len(generated) + 250, dtype=torch.bool)

    broken = Picker(GREEDY, asked[1], constraint=Broken())

    async def all_of_them() -> list[list[int]]:
        pickers = [None, broken, None]
        return await asyncio.gather(
            *(answer(batch, prompt, 20, picker) for prompt, picker in zip(asked, pickers, strict=True))
        )

    first, _, last = run(all_of_them())
    assert [first, last] == [generated(llama, asked[0], 20), generated(llama, asked[2], 20)]
    assert str(broken.error) == "the grammar is too complex"


def test_a_closed_batch_leaves_no_thread(llama: Any) -> None:
    before = threading.active_count()
    made = Batch(llama, ROOM)
    run(answer(made, prompts(1)[0], 3))
    made.close()
    gc.collect()
    assert threading.active_count() == before


def test_a_seed_writes_the_same_alone_and_among_others(llama: Any, batch: Batch) -> None:
    asked = prompts(12, seed=6)
    warm = Sampling(temperature=0.9, top_p=0.9, top_k=40)

    async def together(count: int) -> list[int]:
        answers = [answer(batch, prompt, 25, Picker(warm, prompt, seed=place)) for place, prompt in enumerate(asked)]
        (first, *_) = await asyncio.gather(*answers[:count])
        for rest in answers[count:]:
            rest.close()
        return first

    alone = run(together(1))
    assert run(together(12)) == alone
    other = run(answer(batch, asked[0], 25, Picker(warm, asked[0], seed=99)))
    assert other != alone


def test_one_after_the_other_writes_the_same(llama: Any) -> None:
    asked = prompts(4, seed=7)
    source = Alone(llama, limit=2048)
    expected = [generated(llama, prompt, 12) for prompt in asked]

    async def all_of_them() -> list[list[int]]:
        return await asyncio.gather(*(answer(source, prompt, 12) for prompt in asked))

    try:
        assert run(all_of_them()) == expected
        warm = Sampling(temperature=0.8)
        twice = [run(answer(source, asked[0], 12, Picker(warm, asked[0], seed=1))) for _ in range(2)]
        assert twice[0] == twice[1] != expected[0]
    finally:
        source.close()


def test_one_that_is_left_alone_stops(llama: Any) -> None:
    source = Alone(llama, limit=2048)
    (prompt,) = prompts(1, seed=8)
    steps = 0
    forward = llama.forward

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal steps
        steps += 1
        return forward(*arguments, **named)

    async def leave() -> None:
        arriving: AsyncIterator[list[int]] = source.tokens(prompt, Picker(GREEDY, prompt), max_tokens=1500, ends=())
        await anext(arriving)
        await arriving.aclose()  # type: ignore[attr-defined]  # it is a generator

    llama.forward = counted
    try:
        run(leave())
    finally:
        llama.forward = forward
        source.close()
    assert 0 < steps < 1000


def test_what_cannot_be_paged_is_known(llama: Any) -> None:
    assert suits(llama)
    config = llama.config
    config.layer_types = ["linear_attention", "full_attention"]
    try:
        assert not suits(llama)
    finally:
        del config.layer_types
