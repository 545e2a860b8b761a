import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from models.encoders import save_bert, save_classifier, save_roberta, save_t5
from models.writers import llama
from yapit import Context, LoadError, Model, OutOfMemoryError, SettingsError
from yapit.computing import device_of, fast_bfloat16
from yapit_plugin_hf_generic import loading
from yapit_plugin_hf_generic.embedding.layout import EmbedOptions
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.options import Options, Settings, options_of, settings_of
from yapit_plugin_hf_generic.repositories import Repository


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return save_bert(tmp_path / "bert")


def loader(folder: Path, *, device: str = "cpu", trusted: bool = False, **options: Any) -> Loader:
    model = Model(id="tiny", backend="hf-generic", tasks=("embed",), source=str(folder))
    sections: dict[str, Any] = {"hf-generic": {"trust_remote_code": [str(folder)]}} if trusted else {}
    return Loader(model, Context(device=device, plugin_settings=sections), Options(**options))


def refusal(loading: Loader, auto: Any = transformers.AutoModel) -> str:
    """Return the sentence that says why a model is not loaded."""
    with pytest.raises(LoadError) as caught:
        loading.weights(auto)
    said = str(caught.value)
    assert "\n" not in said
    return said


def change(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


# ── devices ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def machine(monkeypatch: pytest.MonkeyPatch, *, gpus: int = 0, metal: bool = False) -> None:
    """Make torch believe that this machine has other devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: metal)


@pytest.mark.parametrize(
    ("wanted", "gpus", "metal", "found"),
    [
        ("auto", 0, False, "cpu"),
        ("auto", 2, False, "cuda:0"),
        ("auto", 0, True, "mps"),
        ("cpu", 2, True, "cpu"),
        ("cuda", 1, False, "cuda"),
        ("cuda:1", 2, False, "cuda:1"),
        ("mps", 0, True, "mps"),
    ],
)
def test_a_device_is_found(
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    gpus: int,
    metal: bool,  # noqa: FBT001 - of the table
    found: str,
) -> None:
    machine(monkeypatch, gpus=gpus, metal=metal)
    assert device_of(wanted) == torch.device(found)


@pytest.mark.parametrize(
    ("wanted", "gpus", "said"),
    [
        ("cuda", 0, "no device 'cuda': this machine has 0 CUDA devices"),
        ("cuda:7", 2, "no device 'cuda:7': this machine has 2 CUDA devices"),
        ("mps", 2, "no device 'mps'"),
        ("nonsense", 2, "no device 'nonsense': expected auto, cpu, cuda, cuda:N or mps"),
        ("cuda:x", 2, "no device 'cuda:x': expected auto"),
        ("cuda:-1", 2, "no device 'cuda:-1': expected auto"),
        ("meta", 2, "no device 'meta': expected auto"),
        ("xpu", 2, "no device 'xpu': expected auto"),
    ],
)
def test_a_device_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, wanted: str, gpus: int, said: str
) -> None:
    machine(monkeypatch, gpus=gpus)
    with pytest.raises(LoadError, match=said):
        device_of(wanted)


def test_nothing_is_fetched_for_a_device_that_is_not_there() -> None:
    model = Model(id="m", backend="hf-generic", tasks=("embed",), source="org/never-fetched")
    with pytest.raises(LoadError, match="no device 'nonsense'"):
        Loader(model, Context(device="nonsense"), Options())


# ── precision ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("stored", "fast", "chosen"),
    [
        ({"dtype": "bfloat16"}, True, torch.bfloat16),
        ({"dtype": "bfloat16"}, False, torch.float32),
        ({"torch_dtype": "bfloat16"}, True, torch.bfloat16),
        ({"text_config": {"dtype": "bfloat16"}}, True, torch.bfloat16),
        ({"dtype": "float16"}, True, torch.float32),
        ({"dtype": "float32"}, True, torch.float32),
        ({"dtype": None}, True, torch.float32),
    ],
)
def test_the_precision_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch,
    bert: Path,
    stored: dict[str, Any],
    fast: bool,  # noqa: FBT001 - of the table
    chosen: torch.dtype,
) -> None:
    monkeypatch.setattr(loading, "fast_bfloat16", lambda: fast)
    change(bert, **{"dtype": None, **stored})
    assert loader(bert).dtype() == chosen


@pytest.mark.parametrize(
    ("device", "stored", "supported", "chosen"),
    [
        ("cuda", "bfloat16", True, torch.bfloat16),
        ("cuda", "float32", True, torch.bfloat16),
        ("cuda", "float16", True, torch.float16),
        ("cuda", "bfloat16", False, torch.float16),
        ("mps", "bfloat16", True, torch.float16),
    ],
)
def test_the_precision_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
    bert: Path,
    device: str,
    stored: str,
    supported: bool,  # noqa: FBT001 - of the table
    chosen: torch.dtype,
) -> None:
    machine(monkeypatch, gpus=1, metal=True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    change(bert, dtype=stored)
    assert loader(bert, device=device).dtype() == chosen


@pytest.mark.parametrize("wanted", ["float32", "bfloat16", "float16"])
def test_the_precision_that_is_asked_for_counts(bert: Path, wanted: str) -> None:
    asked = loader(bert, dtype=wanted)
    assert asked.dtype() == getattr(torch, wanted)
    assert asked.weights(transformers.AutoModel).dtype == getattr(torch, wanted)
    assert asked.weights(transformers.AutoModel, dtype=torch.float32).dtype == torch.float32


@pytest.mark.parametrize(("avx", "amx", "fast"), [(True, False, True), (False, True, True), (False, False, False)])
def test_a_cpu_that_knows_bfloat16_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    avx: bool,  # noqa: FBT001 - of the table
    amx: bool,  # noqa: FBT001 - of the table
    fast: bool,  # noqa: FBT001 - of the table
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert fast_bfloat16() is fast
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert fast_bfloat16() is False, "a version of torch that cannot tell"


# ── how it is loaded ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_model_is_loaded_as_transformers_does(bert: Path) -> None:
    ours = loader(bert, dtype="float32").weights(transformers.AutoModel)
    theirs = transformers.AutoModel.from_pretrained(bert)
    assert type(ours) is type(theirs)
    assert not ours.training
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("wanted", ["eager", "sdpa"])
def test_the_attention_may_be_chosen(bert: Path, wanted: str) -> None:
    model = loader(bert, attn_implementation=wanted).weights(transformers.AutoModel)
    assert model.config._attn_implementation == wanted


def test_an_attention_that_nobody_knows_is_refused(bert: Path) -> None:
    assert "flsh" in refusal(loader(bert, attn_implementation="flsh"))


def test_the_class_may_be_chosen(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "m", ["a", "b"])
    chosen = loader(folder, architecture="BertForSequenceClassification").weights(transformers.AutoModel)
    assert type(chosen) is transformers.BertForSequenceClassification


@pytest.mark.parametrize("name", ["BertForEverything", "set_seed", "__name__"])
def test_a_class_that_transformers_lacks_is_named(bert: Path, name: str) -> None:
    assert refusal(loader(bert, architecture=name)).endswith(f"transformers has no class '{name}'.")


def test_a_class_that_is_no_model_is_refused(bert: Path) -> None:
    assert "cannot be loaded" in refusal(loader(bert, architecture="BertConfig"))


def test_threads_are_set(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    loader(bert)
    loader(bert, threads=3)
    assert told == [3]


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_a_device_map_places_the_model(bert: Path, device_map: Any) -> None:
    model = loader(bert, device_map=device_map).weights(transformers.AutoModel)
    assert model.device == torch.device("cpu")
    ids = torch.tensor([[1, 2, 3]])
    assert model(input_ids=ids).last_hidden_state.shape[:2] == (1, 3)


def test_a_tokenizer_comes_from_the_folder(bert: Path) -> None:
    tokenizer = loader(bert).part(transformers.AutoTokenizer)
    assert tokenizer("the cat")["input_ids"] == transformers.AutoTokenizer.from_pretrained(bert)("the cat")["input_ids"]


# ── what cannot be loaded ─────────────────────────────────────────────────────────────────────────────────────────────
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}


def test_quantised_weights_need_a_gpu(bert: Path) -> None:
    change(bert, quantization_config=FP8)
    said = refusal(loader(bert))
    assert said == f"The weights of '{bert}' are quantised (fp8), which needs a GPU; here the model runs on cpu."


def test_quantised_weights_are_placed_while_they_are_read(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    class Quantised:
        @classmethod
        def from_pretrained(cls, folder: Path, **arguments: Any) -> "Quantised":
            given.update(arguments)
            return cls()

        def eval(self) -> "Quantised":
            return self

        def to(self, device: object) -> None:
            raise ValueError("`.to` is not supported for quantised models")

    machine(monkeypatch, gpus=1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    change(bert, quantization_config=FP8)
    assert isinstance(loader(bert, device="cuda").weights(Quantised), Quantised)
    assert given["device_map"] == {"": torch.device("cuda")}


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("no weights", "model.safetensors"),
        ("broken weights", "header"),
        ("short weights", "incomplete"),
        ("unknown type", "`nobody`"),
        ("no type", "model_type"),
        ("no configuration", "config.json"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_in_a_sentence(bert: Path, broken: str, said: str) -> None:
    weights = bert / "model.safetensors"
    match broken:
        case "no weights":
            weights.unlink()
        case "broken weights":
            weights.write_bytes(b"\xff" * 100)
        case "short weights":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "unknown type":
            change(bert, model_type="nobody")
        case "no type":
            (bert / "config.json").write_text("{}")
        case "no configuration":
            (bert / "config.json").unlink()
    sentence = refusal(loader(bert))
    assert sentence.startswith(f"The model 'tiny' cannot be loaded from '{bert}': ")
    assert said in sentence
    assert len(sentence) < 500


@pytest.mark.parametrize("auto", [transformers.AutoTokenizer, transformers.AutoProcessor])
@pytest.mark.parametrize("save", [save_bert, save_roberta, save_t5])
def test_a_tokenizer_that_is_missing_is_noticed(tmp_path: Path, save: Any, auto: Any) -> None:
    folder = save(tmp_path / "tiny")
    for path in folder.glob("token*"):
        path.unlink()
    with pytest.raises(LoadError, match=r"The repository '.*' has no tokenizer\."):
        loader(folder).part(auto)


@pytest.mark.parametrize("auto", [transformers.AutoImageProcessor, transformers.AutoFeatureExtractor])
def test_a_part_that_is_missing_is_said_in_a_sentence(bert: Path, auto: Any) -> None:
    with pytest.raises(LoadError, match=r"The model 'tiny' cannot be loaded from '.*': Can't load (image|feature)"):
        loader(bert).part(auto)


def test_where_the_files_are_is_not_told(bert: Path) -> None:
    (bert / "model.safetensors").unlink()
    loading = loader(bert)
    loading.repository = Repository("org/tiny", bert)
    said = refusal(loading)
    assert said.startswith("The model 'tiny' cannot be loaded from 'org/tiny': ")
    assert "org/tiny" in said.partition(": ")[2]
    assert str(bert) not in said


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError(), OutOfMemoryError("full")])
def test_too_little_memory_is_left_to_the_engine(bert: Path, error: Exception) -> None:
    class Hungry:
        @classmethod
        def from_pretrained(cls, folder: Path, **arguments: Any) -> None:
            raise error

    with pytest.raises(type(error)):
        loader(bert).weights(Hungry)


# ── whose code runs ───────────────────────────────────────────────────────────────────────────────────────────────────
OWN_CODE = """
import os
from pathlib import Path
from transformers import BertModel, BertConfig
Path(os.environ["MARKER"]).touch()
class OwnConfig(BertConfig):
    model_type = "own"
class OwnModel(BertModel):
    config_class = OwnConfig
"""


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once the code has run that must not run."""
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path / "marker"


@pytest.fixture
def own(bert: Path) -> Path:
    """A repository that brings its own code."""
    (bert / "modeling_own.py").write_text(OWN_CODE)
    classes = {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    change(bert, model_type="own", architectures=["OwnModel"], auto_map=classes)
    return bert


def test_a_repositorys_own_code_is_refused_and_does_not_run(own: Path, marker: Path) -> None:
    said = refusal(loader(own))
    assert said.startswith(f"The repository '{own}' brings its own code, which may do anything")
    assert "plugin_settings.hf-generic.trust_remote_code" in said
    assert not marker.exists()


def test_the_own_code_of_a_repository_on_the_list_runs(own: Path, marker: Path) -> None:
    assert type(loader(own, trusted=True).weights(transformers.AutoModel)).__name__ == "OwnModel"
    assert marker.exists()


def test_a_list_of_others_trusts_nobody_else(own: Path, marker: Path) -> None:
    model = Model(id="tiny", backend="hf-generic", tasks=("embed",), source=str(own))
    context = Context(
        device="cpu", plugin_settings={"hf-generic": {"trust_remote_code": [str(own.parent), "*", "tiny"]}}
    )
    refusal(Loader(model, context, Options()))
    assert not marker.exists()


def test_the_own_code_of_a_tokenizer_is_refused_and_does_not_run(bert: Path, marker: Path) -> None:
    (bert / "modeling_own.py").write_text(OWN_CODE)
    path = bert / "tokenizer_config.json"
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["modeling_own.Own", "modeling_own.Own"]}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **own}))
    change(bert, model_type="own", auto_map={"AutoConfig": "modeling_own.OwnConfig"})
    with pytest.raises(LoadError, match="brings its own code"):
        loader(bert).part(transformers.AutoTokenizer)
    assert not marker.exists()


def test_an_honest_pickle_is_loaded(bert: Path) -> None:
    weights = load_file(bert / "model.safetensors")
    (bert / "model.safetensors").unlink()
    torch.save(weights, bert / "pytorch_model.bin")
    model = loader(bert, dtype="float32").weights(transformers.AutoModel)
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(model.state_dict()[name], weights[name])


class Malice:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["torch", "plain"])
def test_a_pickle_with_code_is_refused_and_does_not_run(bert: Path, marker: Path, form: str) -> None:
    weights: dict[str, Any] = {**load_file(bert / "model.safetensors"), "more": Malice(marker)}
    (bert / "model.safetensors").unlink()
    with (bert / "pytorch_model.bin").open("wb") as file:
        torch.save(weights, file) if form == "torch" else pickle.dump(weights, file, protocol=2)
    said = refusal(loader(bert))
    assert said.startswith(f"The weights of '{bert}' are a pickle that is broken, or holds code, which is not run")
    assert not marker.exists()


def test_safe_weights_are_preferred_to_a_pickle(bert: Path, marker: Path) -> None:
    torch.save({"more": Malice(marker)}, bert / "pytorch_model.bin")
    loader(bert).weights(transformers.AutoModel)
    assert not marker.exists()


def test_a_model_that_writes_is_loaded_the_same_way(tmp_path: Path) -> None:
    model = loader(llama(tmp_path / "llama")).weights(transformers.AutoModelForCausalLM)
    assert type(model) is transformers.LlamaForCausalLM


# ── options and settings ──────────────────────────────────────────────────────────────────────────────────────────────
def entry(*tasks: str, **options: Any) -> Model:
    return Model(id="tiny", backend="hf-generic", tasks=tasks or ("embed",), options=options)


def test_options_are_read() -> None:
    options = options_of(entry(pooling="cls", dtype="float32"), EmbedOptions)
    assert (options.pooling, options.dtype, options.device_map) == ("cls", "float32", None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"poolng": "cls"}, "model 'tiny': unknown option 'poolng'. Did you mean 'pooling'?"),
        ({"pooling": "sum"}, r"model 'tiny': options: Invalid enum value 'sum' - at `\$.pooling`"),
        ({"dtype": "float64"}, r"\$.dtype"),
        ({"threads": 0}, r"\$.threads"),
        ({"threads": "many"}, r"\$.threads"),
        ({"device_map": 3}, r"\$.device_map"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        options_of(entry(**options), EmbedOptions)


def test_a_model_of_two_tasks_has_the_options_of_both() -> None:
    both = entry("embed", "generate", pooling="cls", reasoning="none", threads=2)
    assert options_of(both, EmbedOptions).pooling == "cls"
    assert options_of(both, Options) == Options(threads=2)


def test_settings_are_read() -> None:
    assert settings_of(Context()) == Settings()
    context = Context(plugin_settings={"hf-generic": {"trust_remote_code": ["org/a"], "remote_images": True}})
    assert settings_of(context) == Settings(trust_remote_code=("org/a",), remote_images=True)


@pytest.mark.parametrize("section", [{"trust_remote_cod": []}, {"max_image_bytes": 0}, {"trust_remote_code": "org/a"}])
def test_wrong_settings_are_refused(section: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="hf-generic"):
        settings_of(Context(plugin_settings={"hf-generic": section}))
