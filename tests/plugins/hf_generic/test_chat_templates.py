"""Prompts, compared with those of transformers' own `apply_chat_template`."""

import json
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models import writers
from yapit import Context, GenerateRequest, InvalidInputError, LoadError, Model, SettingsError
from yapit_plugin_hf_generic.generating.chat import Chat, ChatOptions
from yapit_plugin_hf_generic.generating.messages import Messages
from yapit_plugin_hf_generic.generating.parsing.styles import bars
from yapit_plugin_hf_generic.generating.processors import processor_of
from yapit_plugin_hf_generic.generating.templates import ChatTemplate
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.options import Options, Settings

USER = {"role": "user", "content": "Hi <b>you</b> ü"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": [1, "x"]}'}}
PARSED = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": {"a": [1, "x"]}}}
TOOL = {"type": "function", "function": {"name": "f", "description": "Does.", "parameters": {"type": "object"}}}
# As Mistral's: roles alternate, ids have nine letters or digits, the system message is put before the question.
MISTRAL = """{%- for m in messages -%}
{%- if m.role == 'user' and loop.index0 % 2 != 0 and messages[loop.index0 - 1].role == 'user' -%}
{{ raise_exception('After the optional system message, conversation roles must alternate user/assistant') }}
{%- endif -%}
{%- if m.role == 'user' -%}[INST]{{ m.content }}[/INST]
{%- elif m.tool_calls -%}[TOOL_CALLS]
{%- for c in m.tool_calls -%}
{%- if c.id | length != 9 -%}{{ raise_exception('Tool call IDs should be strings with length 9!') }}{%- endif -%}
{{ c.function.arguments | tojson }}#{{ c.id }}{%- endfor -%}
{%- elif m.role == 'tool' -%}[RESULT]{{ m.content }}#{{ m.tool_call_id }}
{%- else -%}{{ m.content }}{{ eos_token }}{%- endif -%}
{%- endfor -%}"""
# As DeepSeek-V3's: arguments are text that is joined to text.
TEXT_ARGUMENTS = """{%- for m in messages -%}{{ m.role }}:{{ m.content }}
{%- for c in m.tool_calls or [] -%}{{ '```json\n' + c.function.arguments + '\n```' }}{%- endfor -%}
{%- endfor -%}"""


def chat(template: str | dict[str, str] | None = writers.THINKING, **options: Any) -> Chat:
    words = writers.tokenizer()
    words.chat_template = template
    return Chat(words, None, Settings(), ChatOptions(**options))


def asked(*messages: dict[str, Any], **fields: Any) -> GenerateRequest:
    return GenerateRequest(messages=messages, **fields)


def text(made: Chat, request: GenerateRequest) -> str:
    return str(writers.tokenizer().decode(made.prompt(request).ids))


def own(template: str, messages: list[Any], **arguments: Any) -> list[int]:
    """Return what transformers itself makes of the messages."""
    given = {"add_generation_prompt": True} | arguments
    ids: list[int] = writers.tokenizer(template).apply_chat_template(messages, return_dict=True, **given)["input_ids"]
    return ids


def refused(made: Chat, request: GenerateRequest) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        made.prompt(request)
    return caught.value


ASSISTANT = {"role": "assistant", "content": "Hm."}
CONVERSATIONS: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = [
    ([USER], [USER]),
    ([{"role": "developer", "content": "Be."}, USER], [{"role": "system", "content": "Be."}, USER]),
    ([USER, ASSISTANT, USER], [USER, ASSISTANT, USER]),
    (
        [USER, {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None}],
        [USER, {"role": "assistant", "content": "", "tool_calls": [PARSED]}],
    ),
    (
        [USER, {"role": "tool", "tool_call_id": "call_1", "content": "3"}],
        [USER, {"role": "tool", "tool_call_id": "call_1", "content": "3"}],
    ),
    ([USER, {"role": "function", "name": "f", "content": "3"}], [USER, {"role": "tool", "name": "f", "content": "3"}]),
    (
        [USER, {"role": "assistant", "function_call": CALL["function"]}],
        [USER, {"role": "assistant", "content": "", "tool_calls": [PARSED]}],
    ),
    (
        [{"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]}],
        [{"role": "user", "content": "One.\nTwo."}],
    ),
    ([{"role": "user", "content": []}], [{"role": "user", "content": ""}]),
    (
        [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}],
        [{"role": "assistant", "content": "No."}],
    ),
]


@pytest.mark.parametrize(("given", "meant"), CONVERSATIONS)
@pytest.mark.parametrize("template", [writers.CHATML, writers.THINKING, writers.OPENED])
def test_the_prompt_is_the_one_of_transformers(template: str, given: Any, meant: Any) -> None:
    prompt = chat(template).prompt(asked(*given))
    assert prompt.ids == own(template, meant)
    assert prompt.inputs is None


def test_tools_are_shown_to_the_model_but_not_how_they_are_decoded() -> None:
    strict = {"type": "function", "function": {**TOOL["function"], "strict": True, "x": None}}  # type: ignore[dict-item]
    made = chat()
    assert made.prompt(asked(USER, tools=(strict,))).ids == own(writers.THINKING, [USER], tools=[TOOL])
    assert "Does." in text(made, asked(USER, tools=(strict,)))


@pytest.mark.parametrize("tool", [{"type": "custom", "custom": {"name": "x"}}, {"function": {}}, {"function": "f"}])
def test_a_tool_that_is_no_function_is_refused(tool: Any) -> None:
    assert refused(chat(), asked(USER, tools=(TOOL, tool))).param == "tools[1]"


def test_arguments_that_are_no_json_stay_text() -> None:
    broken = {"type": "function", "function": {"name": "f", "arguments": "{oops"}}
    message = {"role": "assistant", "content": "", "tool_calls": [broken]}
    assert '"arguments": "{oops"' in text(chat(), asked(USER, message))


def test_a_template_that_joins_arguments_gets_them_as_text() -> None:
    message = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert '```json\n{"a": [1, "x"]}\n```' in text(chat(TEXT_ARGUMENTS), asked(USER, message))


def test_ids_of_other_servers_are_made_short_for_templates_that_want_that() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": "call_0123456789abcdef"}]}
    result = {"role": "tool", "tool_call_id": "call_0123456789abcdef", "content": "3"}
    said = text(chat(MISTRAL), asked(USER, call, result))
    assert said.endswith('{"a": [1, "x"]}#789abcdef[RESULT]3#789abcdef')
    assert '"x"]}#00000call' in text(chat(MISTRAL), asked(USER, {**call, "tool_calls": [{**CALL, "id": "call"}]}))


def test_what_the_template_refuses_is_refused_with_its_words() -> None:
    error = refused(chat(MISTRAL), asked(USER, USER))
    assert error.param == "messages"
    assert "roles must alternate" in error.message


@pytest.mark.parametrize("template", ["{{ messages[7].content.x }}", "{{ 1 // 0 }}", "{{ 'a' + 1 }}"])
def test_a_template_that_fails_at_the_messages_is_no_crash(template: str) -> None:
    assert refused(chat(template), asked(USER)).param == "messages"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(template: str) -> None:
    said = refused(chat(template), asked(USER)).message
    assert "unsafe" in said or "undefined" in said


def test_without_a_template_the_way_out_is_said() -> None:
    error = refused(chat(None), asked(USER))
    assert error.param == "messages"
    assert "/v1/completions" in error.message
    assert "chat_template" in error.message


def test_an_option_gives_a_template_or_names_its_file(tmp_path: Path) -> None:
    assert text(chat(None, chat_template="<{{ messages[0].content }}>"), asked(USER)) == f"<{USER['content']}>"
    path = tmp_path / "own.jinja"
    path.write_text("ü{{ messages[0].role }}", encoding="utf-8")
    assert text(chat(writers.CHATML, chat_template=str(path)), asked(USER)) == "üuser"


def test_a_template_that_is_none_is_said_when_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.jinja"):
        chat(chat_template=str(tmp_path / "missing.jinja"))
    with pytest.raises(LoadError, match="line 2"):
        chat("{{ messages }}\n{% if %}")


def test_the_template_for_tools_is_taken_with_tools() -> None:
    made = chat({"default": "plain", "tool_use": "tools"})
    assert text(made, asked(USER)) == "plain"
    assert text(made, asked(USER, tools=(TOOL,))) == "tools"


@pytest.mark.parametrize(
    ("template", "effort", "prefix"),
    [
        (writers.THINKING, None, ""),
        (writers.THINKING, "high", ""),
        (writers.THINKING, "none", "<think>\n\n</think>\n\n"),
        (writers.OPENED, None, "<think>\n"),
        (writers.CHATML, "none", ""),
    ],
)
def test_the_prefix_is_what_the_prompt_says_of_the_reasoning(template: str, effort: str | None, prefix: str) -> None:
    for content in ("Hi", "<think>", "</think>", "a <think>\n"):
        prompt = chat(template).prompt(asked({"role": "user", "content": content}, reasoning_effort=effort))
        assert prompt.prefix == prefix
    variables = {} if effort is None else {"enable_thinking": effort != "none"}
    assert chat(template).prompt(asked(USER, reasoning_effort=effort)).ids == own(template, [USER], **variables)


def test_the_effort_is_a_variable_of_the_template() -> None:
    template = "{{ reasoning_effort | default('unset') }} {{ thinking | default('unset') }}"
    assert text(chat(template), asked(USER)) == "unset unset"
    assert text(chat(template), asked(USER, reasoning_effort="high")) == "high True"
    assert text(chat(template), asked(USER, reasoning_effort="none")) == "none False"
    harmony = "<|channel|>{{ reasoning_effort }}"
    assert text(chat(harmony), asked(USER, reasoning_effort="minimal")) == "<|channel|>low"


def test_a_request_sets_variables_of_the_template_and_nothing_else() -> None:
    made = chat("{{ mood }} {{ enable_thinking }}")
    given = {"chat_template_kwargs": {"mood": "calm", "enable_thinking": 3}}
    assert text(made, asked(USER, options=given, reasoning_effort="none")) == "calm 3"
    for name in ("chat_template", "tokenize", "messages", "tools", "conversation", "add_generation_prompt"):
        error = refused(made, asked(USER, options={"chat_template_kwargs": {name: "{{ 1 }}"}}))
        assert error.param == "chat_template_kwargs"
        assert name in error.message
    assert refused(made, asked(USER, options={"chat_template_kwargs": ["x"]})).param == "chat_template_kwargs"


@pytest.mark.parametrize("asks", [{"options": {"continue_final_message": True}}, {"prefix": True}])
def test_an_answer_goes_on_with_the_last_message(asks: dict[str, Any]) -> None:
    last = {"role": "assistant", "content": "<think>\nWell"} | ({"prefix": True} if "prefix" in asks else {})
    prompt = chat(writers.CHATML).prompt(asked(USER, last, options=asks.get("options", {})))
    plain = {"role": "assistant", "content": "<think>\nWell"}
    arguments = {"continue_final_message": True, "add_generation_prompt": False}
    assert prompt.ids == own(writers.CHATML, [USER, plain], **arguments)
    assert prompt.prefix == "<think>\nWell"


def test_only_the_assistant_is_continued() -> None:
    error = refused(chat(), asked(USER, options={"continue_final_message": True}))
    assert error.param == "continue_final_message"


def test_a_prompt_is_read_as_the_tokenizer_reads_it() -> None:
    made, words = chat(None), writers.tokenizer()
    given = "def f():\n  <|im_start|>ü"
    assert made.prompt(GenerateRequest(prompt=given)).ids == words(given)["input_ids"]
    assert made.prompt(GenerateRequest(prompt=(1, 2, 263))).ids == [1, 2, 263]
    assert made.prompt(GenerateRequest(prompt="")).ids == [words.bos_token_id]


@pytest.mark.parametrize("token", [-1, 100_000])
def test_tokens_that_the_model_does_not_have_are_refused(token: int) -> None:
    error = refused(chat(), GenerateRequest(prompt=(1, token)))
    assert error.param == "prompt"
    assert str(token) in error.message


def test_a_suffix_is_put_in_the_form_of_the_model() -> None:
    request = GenerateRequest(prompt="a = {suffix}", suffix="{prefix}\n")
    expected = "<|fim_prefix|>a = {suffix}<|fim_suffix|>{prefix}\n<|fim_middle|>"
    assert chat().prompt(request).ids == writers.tokenizer()(expected)["input_ids"]
    assert text(chat(fim="S{suffix}P{prefix}"), request) == "S{prefix}\nPa = {suffix}"
    assert text(chat(), GenerateRequest(prompt="a", suffix="")) == "a"
    assert refused(chat(), GenerateRequest(prompt=(1, 2), suffix="x")).param == "suffix"


@pytest.mark.parametrize(
    ("special", "prompt"),
    [
        (("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), "<fim_prefix>a<fim_suffix>b<fim_middle>"),
        (
            (bars("fim begin"), bars("fim hole"), bars("fim end")),
            f"{bars('fim begin')}a{bars('fim hole')}b{bars('fim end')}",
        ),
        (("[SUFFIX]", "[PREFIX]"), "[SUFFIX]b[PREFIX]a"),
        (("<PRE>", "<SUF>", "<MID>"), "<PRE> a <SUF>b <MID>"),
    ],
)
def test_the_form_is_found_in_the_vocabulary(special: tuple[str, ...], prompt: str) -> None:
    words = writers.tokenizer(None, special=special, plain=())
    made = Chat(words, None, Settings(), ChatOptions())
    assert words.decode(made.prompt(GenerateRequest(prompt="a", suffix="b")).ids) == prompt


def test_a_model_that_cannot_fill_in_says_so() -> None:
    made = Chat(writers.tokenizer(None, plain=()), None, Settings(), ChatOptions())
    assert refused(made, GenerateRequest(prompt="a", suffix="b")).param == "suffix"


def pixels(colour: tuple[int, int, int], size: tuple[int, int] = (32, 32)) -> tuple[Image.Image, dict[str, Any]]:
    image = Image.new("RGB", size, colour)
    data = BytesIO()
    image.save(data, "PNG")
    url = f"data:image/png;base64,{b64encode(data.getvalue()).decode()}"
    return image, {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


RED, RED_PART = pixels((255, 0, 0))
BLUE, BLUE_PART = pixels((0, 0, 255), (64, 32))


@pytest.fixture(scope="module", params=["qwen3_vl", "llava"])
def processor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = getattr(writers, request.param)(tmp_path_factory.mktemp(request.param))
    model = Model(id="x", backend="hf-generic", source=str(folder), tasks=("generate",))
    return processor_of(Loader(model, Context(device="cpu"), Options()))


def test_images_are_read_as_the_processor_reads_them(processor: Any) -> None:
    made = Chat(processor.tokenizer, processor, Settings(), ChatOptions())
    content = [{"type": "text", "text": "See"}, RED_PART, BLUE_PART, {"type": "text", "text": "both"}]
    prompt = made.prompt(asked({"role": "user", "content": content}))
    parts = [{"type": "text", "text": "See"}, {"type": "image", "image": RED}, {"type": "image", "image": BLUE}]
    meant = [{"role": "user", "content": [*parts, {"type": "text", "text": "both"}]}]
    expected = processor.apply_chat_template(
        meant, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    assert prompt.ids == expected["input_ids"][0].tolist()
    assert prompt.inputs is not None
    assert set(prompt.inputs) == set(expected) - {"input_ids", "attention_mask"}
    for name, value in prompt.inputs.items():
        assert value.equal(expected[name]), name


@pytest.mark.parametrize("named", [True, False])
def test_the_processor_is_found_in_repositories_of_older_layout(tmp_path: Path, *, named: bool) -> None:
    folder = writers.qwen3_vl(tmp_path)
    images = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    (folder / "processor_config.json").unlink()
    name = {"processor_class": "Qwen3VLProcessor"} if named else {}
    images |= {"image_processor_type": "Qwen2VLImageProcessorFast", **name}
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": writers.CHATML}))
    model = Model(id="x", backend="hf-generic", source=str(folder), tasks=("generate",))
    found = processor_of(Loader(model, Context(device="cpu"), Options()))
    assert type(found).__name__ == "Qwen3VLProcessor"
    prompt = Chat(found.tokenizer, found, Settings(), ChatOptions()).prompt(
        asked({"role": "user", "content": [RED_PART]})
    )
    assert prompt.ids.count(found.image_token_id) == 4


def test_a_model_that_sees_takes_text_only_too(processor: Any) -> None:
    made = Chat(processor.tokenizer, processor, Settings(), ChatOptions())
    for content in ("Hello", [{"type": "text", "text": "Hello"}]):
        prompt = made.prompt(asked({"role": "user", "content": content}))
        meant = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
        expected = processor.apply_chat_template(meant, tokenize=True, return_dict=True, add_generation_prompt=True)
        assert prompt.ids == expected["input_ids"][0]
        assert "Hello" in processor.tokenizer.decode(prompt.ids)
        assert prompt.inputs is None


def test_an_image_that_is_only_written_about_is_refused(processor: Any) -> None:
    made = Chat(processor.tokenizer, processor, Settings(), ChatOptions())
    content = [{"type": "text", "text": processor.image_token}, RED_PART]
    assert refused(made, asked({"role": "user", "content": content})).param == "messages"


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "image", "path": "/etc/hostname"}, "messages[1].content[1]"),
        ({"type": "image", "url": "http://localhost/x.png"}, "messages[1].content[1]"),
        ({"type": "video", "path": "/etc/hostname"}, "messages[1].content[1]"),
        ({"type": "input_audio", "input_audio": {}}, "messages[1].content[1]"),
        ({"type": "image_url"}, "messages[1].content[1].image_url"),
        ({"type": "image_url", "image_url": {"url": "/etc/hostname"}}, "messages[1].content[1].image_url"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/hostname"}}, "messages[1].content[1].image_url"),
        ({"type": "image_url", "image_url": {"url": "http://localhost/x.png"}}, "messages[1].content[1].image_url"),
        ("text", "messages[1].content[1]"),
        ({"type": "text", "text": 3}, "messages[1].content[1]"),
    ],
)
def test_no_file_and_no_url_gets_past_the_rules_for_images(processor: Any, part: Any, param: str) -> None:
    made = Chat(processor.tokenizer, processor, Settings(), ChatOptions())
    content = [{"type": "text", "text": "See"}, part]
    assert refused(made, asked(USER, {"role": "user", "content": content})).param == param


def test_a_part_brings_nothing_in_but_what_it_is_for(processor: Any) -> None:
    reading = Messages(ChatTemplate(processor, processor.chat_template), seeing=True)
    with_path = {**RED_PART, "path": "/etc/hostname", "url": "http://localhost/", "image": "/etc/hostname"}
    [message] = reading.of([{"role": "user", "content": [with_path, {"type": "text", "text": "x", "path": "/"}]}])
    assert message["content"] == [{"type": "image"}, {"type": "text", "text": "x"}]
    assert reading.images == [(RED_PART["image_url"]["url"], "messages[0].content[0].image_url")]


def test_a_template_that_would_print_the_parts_gets_no_images(processor: Any) -> None:
    made = Chat(processor.tokenizer, processor, Settings(), ChatOptions(chat_template="{{ messages[0].content }}"))
    error = refused(made, asked({"role": "user", "content": [RED_PART]}))
    assert (error.param, "no images" in error.message) == ("messages[0].content", True)


def test_a_text_model_says_where_the_image_is() -> None:
    content = [{"type": "text", "text": "See"}, RED_PART]
    error = refused(chat(), asked(USER, {"role": "user", "content": content}))
    assert error.param == "messages[1].content[1]"
    assert "no images" in error.message


@pytest.mark.parametrize("content", [3, {"type": "text", "text": "x"}])
def test_content_of_another_shape_is_refused(content: Any) -> None:
    assert refused(chat(), asked({"role": "user", "content": content})).param == "messages[0].content"
