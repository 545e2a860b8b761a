"""The attention of answers that are decoded together on a CPU: each attends to its own keys only.

transformers lets all answers attend to the keys of all, and masks: with 32 answers of 300 tokens, this takes three
quarters of the time of a step.
"""

import itertools
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward

_FULL = "full_attention"
_PADDING = 1.5  # times the keys that there are: more than that is not worth it


class _Rows(Struct, frozen=True):
    """Where the keys of each answer lie in the cache, for one step and all layers of a kind.

    Args:
        of: what of the step it was made from.
        places: of answers by keys; the shorter ones are filled up.
        mask: which of them are keys, None if all are.
        run: the same places, where they are those of one answer and lie side by side: nothing need be copied then.
    """

    of: Any
    places: Tensor
    mask: Tensor | None
    run: slice | None


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **arguments: Any
) -> tuple[Tensor, None]:
    """Stand for transformers' function of the same arguments; where nothing is paged, it is that function."""
    cache = arguments.pop("cache", None)
    if cache is None or arguments.get("cu_seq_lens_q") is None or arguments.get("position_bias") is not None:
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, cache=cache, **arguments
        )
        return found
    rows = _rows(cache, module.layer_idx, arguments, tokens=query.shape[2])
    if rows is not None:
        keys, values = _paged(cache, module.layer_idx, arguments, key, value, rows)
        output = scaled_dot_product_attention(
            _packed(query, key), keys, values, attn_mask=rows.mask, scale=arguments.get("scaling")
        )
        return output.reshape(1, query.shape[2], query.shape[1], -1), None
    return _one_by_one(module, query, cache.update(key, value, module.layer_idx, arguments), attention_mask, arguments)


def _one_by_one(
    module: Any, query: Tensor, cached: tuple[Tensor, Tensor], attention_mask: Tensor | None, arguments: dict[str, Any]
) -> tuple[Tensor, None]:
    """Attend from each prompt, or part of one, and from each answer by itself."""
    window = arguments.get("sliding_window")
    queries, keys = arguments["cu_seq_lens_q"].tolist(), arguments["cu_seq_lens_k"].tolist()
    outputs = []
    for (begin, end), (first, last) in zip(itertools.pairwise(queries), itertools.pairwise(keys), strict=True):
        fresh = end - begin == last - first and not window  # the whole prompt at once: plainly causal
        plain = fresh or (end - begin == 1 and not window)
        mask = None if plain or attention_mask is None else attention_mask[..., begin:end, first:last]
        output, _ = sdpa_attention_forward(
            module,
            query[:, :, begin:end],
            *(states[:, :, first:last] for states in cached),
            mask,
            scaling=arguments.get("scaling"),
            is_causal=fresh,
        )
        outputs.append(output)
    return torch.cat(outputs, dim=1), None


def _rows(cache: Any, layer: int, arguments: dict[str, Any], tokens: int) -> _Rows | None:
    """Return where the keys lie if each answer reads one token, and they are of about the same length."""
    allocator = cache.layer_to_allocator[layer]
    reads = arguments["read_index"]
    known: dict[int, _Rows | None] = cache.__dict__.setdefault("_rows_of_step", {})
    rows = known.get(allocator.index)
    if rows is not None and rows.of is reads:
        return rows
    known[allocator.index] = None
    ends = arguments["cu_seq_lens_k"][allocator.layer_type]
    one_each = arguments["max_length_q"] == 1 and len(ends) == tokens + 1 and arguments.get("block_table") is None
    if not one_each or allocator.layer_type != _FULL or not reads[allocator.index].numel():
        return None
    lengths = ends.diff()
    longest = int(lengths.max())
    if tokens * longest > _PADDING * int(ends[-1]):
        return None
    steps = torch.arange(longest)
    mask = steps < lengths.unsqueeze(1)
    places = reads[allocator.index][torch.where(mask, ends[:-1].unsqueeze(1) + steps, ends[:-1].unsqueeze(1))]
    rows = _Rows(reads, places, None if bool(mask.all()) else mask[:, None, None], _run(places))
    known[allocator.index] = rows
    return rows


def _run(places: Tensor) -> slice | None:
    first, length = int(places[0, 0]), places.shape[1]
    alone = len(places) == 1 and bool((places[0] == torch.arange(first, first + length)).all())
    return slice(first, first + length) if alone else None


def _paged(
    cache: Any, layer: int, arguments: dict[str, Any], key: Tensor, value: Tensor, rows: _Rows
) -> tuple[Tensor, Tensor]:
    """Write the new keys and values, and return all: [answers, heads, keys, width]."""
    allocator = cache.layer_to_allocator[layer]
    written = arguments["write_index"][allocator.index]
    found = []
    for states, pages in zip((key, value), allocator._kv_token_views[layer], strict=True):  # noqa: SLF001 - pinned
        pages.index_copy_(0, written, states.squeeze(0).transpose(0, 1))
        read = pages.index_select(0, rows.places.reshape(-1)) if rows.run is None else pages[rows.run]
        found.append(read.view(*rows.places.shape, *read.shape[1:]).transpose(1, 2))
    return found[0], found[1]


def _packed(query: Tensor, key: Tensor) -> Tensor:
    """Return the queries by answer, those that share a key's head side by side: [answers, key heads, shared, width].

    So keys need not be copied for each head.
    """
    _, heads, tokens, width = query.shape
    return query.transpose(1, 2).reshape(tokens, key.shape[1], heads // key.shape[1], width)
