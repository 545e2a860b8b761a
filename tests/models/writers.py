"""Tiny models that write text: random weights, a tokenizer of bytes, a ChatML template with tools and reasoning."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from yapit_plugin_hf_generic.generating.processors import without_videos

CONTEXT = 2048

_TURNS = """
{%- macro shown(content) -%}
  {%- if content is string -%}{{ content }}
  {%- elif content is iterable -%}
    {%- for part in content -%}
      {%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>{%- else -%}{{ part.text }}{%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- if tools -%}
<|im_start|>system
{% if messages[0].role == 'system' %}{{ shown(messages[0].content) }}

{% endif %}# Tools
<tools>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}</tools>
Call as <tool_call>
{"name": <name>, "arguments": <object>}
</tool_call><|im_end|>
{% elif messages[0].role == 'system' -%}
<|im_start|>system
{{ shown(messages[0].content) }}<|im_end|>
{% endif -%}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}
    {%- if not loop.first -%}{{ raise_exception('System message must be at the beginning.') }}{%- endif -%}
  {%- elif message.role == 'tool' -%}
<|im_start|>user
<tool_response>
{{ shown(message.content) }}
</tool_response><|im_end|>
{% else -%}
<|im_start|>{{ message.role }}
{% if message.reasoning_content and loop.last %}<think>
{{ message.reasoning_content }}
</think>

{% endif -%}
{{ shown(message.content) }}
    {%- for call in message.tool_calls or [] -%}
{{ '\n' }}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
    {%- endfor -%}
<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
"""
CHATML = _TURNS + "{% endif -%}"
# As Qwen3: it may think; `enable_thinking=False` closes the block for it.
THINKING = (
    _TURNS
    + """{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif -%}"""
)
# As DeepSeek-R1: it always thinks, and the prompt opens the block.
OPENED = (
    _TURNS
    + """<think>
{% endif -%}"""
)
# As LLaVA: content is always a list of parts.
PARTS_ONLY = """{% for message in messages %}{{ message.role | upper }}: {% for part in message.content %}
{%- if part.type == 'image' %}<image>
{% else %}{{ part.text }}{% endif %}{% endfor %}
{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"""

_SPECIAL = ("<|im_start|>",)
_VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_PLAIN = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_suffix|>",
    "<|fim_middle|>",
)


def tokenizer(
    template: str | None = THINKING, *, special: tuple[str, ...] = (), plain: tuple[str, ...] = _PLAIN
) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each byte and each mark; `special` ones are left out of decoded text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    found = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<|bos|>",  # noqa: S106 - a token of text
        eos_token="<|im_end|>",  # noqa: S106 - a token of text
        pad_token="<|pad|>",  # noqa: S106 - a token of text
        extra_special_tokens=[*_SPECIAL, *special],
    )
    found.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain])
    found.chat_template = template
    found.padding_side = "left"
    return found


def llama(folder: Path, *, template: str | None = CHATML, layers: int = 2, hidden: int = 64, seed: int = 0) -> Path:
    """Write a Llama, and return its folder."""
    words = tokenizer(template)
    torch.manual_seed(seed)
    return _saved(folder, LlamaForCausalLM(LlamaConfig(**_sizes(words, layers, hidden))), words)


def qwen3(folder: Path, *, template: str | None = THINKING, layers: int = 2, hidden: int = 64, seed: int = 0) -> Path:
    """Write a Qwen3, whose vocabulary is padded as the real one's is, and return its folder."""
    words = tokenizer(template)
    sizes = _sizes(words, layers, hidden) | {"vocab_size": len(words) + 21, "head_dim": hidden // 4}
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(Qwen3Config(**sizes))
    with torch.no_grad():
        model.lm_head.weight[len(words) :] = 0  # what is no token is never the likeliest
    return _saved(folder, model, words)


def gpt2(folder: Path, *, layers: int = 2, hidden: int = 64, seed: int = 0) -> Path:
    """Write a GPT-2, which has absolute positions and no chat template, and return its folder."""
    words = tokenizer(None)
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(words),
        n_embd=hidden,
        n_layer=layers,
        n_head=4,
        n_positions=CONTEXT,
        tie_word_embeddings=False,
        **_ends(words),
    )
    return _saved(folder, GPT2LMHeadModel(config), words)


def gemma3(folder: Path, *, window: int = 16, hidden: int = 64, seed: int = 0) -> Path:
    """Write a Gemma 3, of whose layers all but the last see the last `window` tokens only, and return its folder."""
    words = tokenizer(CHATML)
    sizes = _sizes(words, 3, hidden) | {
        "head_dim": hidden // 4,
        "sliding_window": window,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    }
    torch.manual_seed(seed)
    return _saved(folder, Gemma3ForCausalLM(Gemma3TextConfig(**sizes)), words)


def qwen3_vl(folder: Path, *, hidden: int = 64, seed: int = 0) -> Path:
    """Write a Qwen3-VL with its processor, and return its folder; an image of 32 by 32 pixels is 4 tokens."""
    words = tokenizer(THINKING, special=_VISION)
    processor = without_videos(Qwen3VLProcessor)(  # its videos want torchvision
        image_processor=Qwen2VLImageProcessorPil(
            patch_size=8, temporal_patch_size=2, merge_size=2, size={"shortest_edge": 256, "longest_edge": 4096}
        ),
        tokenizer=words,
        chat_template=THINKING,
    )
    text = _sizes(words, 2, hidden) | {
        "head_dim": hidden // 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 2, 2]},
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 4,
        "patch_size": 8,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "out_hidden_size": hidden,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=words.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=words.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=words.convert_tokens_to_ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    _saved(folder, Qwen3VLForConditionalGeneration(config), words, processor)
    videos = {"video_processor_type": "Qwen3VLVideoProcessor", "patch_size": 8, "merge_size": 2}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(videos))  # read where torchvision is
    return folder


def llava(folder: Path, *, hidden: int = 64, seed: int = 0) -> Path:
    """Write a LLaVA with its processor, and return its folder; every image is 16 tokens, and content a list."""
    words = tokenizer(PARTS_ONLY, special=("<image>",))
    image = words.convert_tokens_to_ids("<image>")
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_convert_rgb=True
        ),
        tokenizer=words,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=PARTS_ONLY,
        image_token="<image>",  # noqa: S106 - a token of text
        num_additional_image_tokens=1,
    )
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
        "projection_dim": 32,
    }
    config = LlavaConfig(
        text_config={"model_type": "llama", **_sizes(words, 2, hidden)},
        vision_config=vision,
        image_token_index=image,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    return _saved(folder, LlavaForConditionalGeneration(config), words, processor)


def _sizes(words: PreTrainedTokenizerFast, layers: int, hidden: int) -> dict[str, Any]:
    return {
        "vocab_size": len(words),
        "hidden_size": hidden,
        "intermediate_size": hidden * 3,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,  # else a random model repeats one character
        **_ends(words),
    }


def _ends(words: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }


def _saved(folder: Path, model: Any, words: PreTrainedTokenizerFast, processor: Any = None) -> Path:
    model.generation_config = GenerationConfig(**_ends(words))
    model.eval().save_pretrained(folder)
    (processor or words).save_pretrained(folder)
    return folder
