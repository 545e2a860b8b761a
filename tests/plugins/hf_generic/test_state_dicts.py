"""State dicts: of networks that an entry names, without code in pickles, and hub code only from the list."""

import hashlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import yapit_plugin_hf_generic as plugin
from yapit import Classification, Classifier, ClassifyRequest, Context, LoadError, Model
from yapit.weights import Weights, file_of
from yapit_plugin_hf_generic.vision.architectures import architectures, imagenet
from yapit_plugin_hf_generic.vision.labelling import Preparing
from yapit_plugin_hf_generic.vision.networks import network_of


class Block(nn.Module):  # type: ignore[misc]  # the types of torch are not read
    """A block of torchvision's ResNet, written once more."""

    def __init__(self, into: int, width: int, stride: int, *, wide: bool) -> None:
        super().__init__()
        out = width * (4 if wide else 1)
        sizes = [(into, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        if not wide:
            sizes = [(into, width, 3, stride), (width, width, 3, 1)]
        for number, (one, other, kernel, step) in enumerate(sizes, 1):
            convolution = nn.Conv2d(one, other, kernel, step, kernel // 2, bias=False)
            setattr(self, f"conv{number}", convolution)
            setattr(self, f"bn{number}", nn.BatchNorm2d(other))
        self.count = len(sizes)
        self.downsample = None
        if stride != 1 or into != out:
            self.downsample = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        way = x if self.downsample is None else self.downsample(x)
        for number in range(1, self.count + 1):
            x = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))
            x = x + way if number == self.count else x
            x = x.relu()
        return x


class ResNet(nn.Module):  # type: ignore[misc]  # the types of torch are not read
    """torchvision's ResNet, written once more: what transformers' must say too."""

    def __init__(self, depths: list[int], *, wide: bool, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        into = 64
        for stage, depth in enumerate(depths, 1):
            blocks = []
            for number in range(depth):
                width = 32 * 2**stage
                blocks.append(Block(into, width, 2 if stage > 1 and number == 0 else 1, wide=wide))
                into = width * (4 if wide else 1)
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(into, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.bn1(self.conv1(x)).relu())
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores


def resnet18(classes: int = 3) -> ResNet:
    torch.manual_seed(5)
    return lively(ResNet([2, 2, 2, 2], wide=False, classes=classes))


def lively(network: ResNet) -> ResNet:
    """Let the statistics of the layers be others than at first, so that none can be forgotten."""
    for name, tensor in network.state_dict().items():
        if "running" in name or ("bn" in name and tensor.is_floating_point()):
            tensor.uniform_(0.5, 1.5)
    network.eval()
    return network


def picture(seed: int = 0) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (40, 60, 3), generator=generator, dtype=torch.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(data, "PNG")
    return data.getvalue()


def entry(source: str | None, architecture: str | None = "resnet18", **options: Any) -> Model:
    given = {} if architecture is None else {"architecture": architecture}
    return Model(id="mine", backend="hf-generic", tasks=("classify",), source=source, options={**given, **options})


def load(model: Model, tmp_path: Path, **settings: Any) -> Classifier:
    context = Context(device="cpu", data_dir=tmp_path / "data", plugin_settings={"hf-generic": settings})
    adapter = plugin.classify(model, context)
    assert adapter is not None
    return adapter


def labels(adapter: Classifier, *images: bytes) -> list[Classification]:
    found = adapter.classify(ClassifyRequest(images=images or (picture(),)))
    assert isinstance(found, Iterator)
    return list(found)


def saved(tmp_path: Path, network: nn.Module, name: str = "resnet18.pth", wrap: str | None = None) -> str:
    tensors = network.state_dict()
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(dict(tensors), path)
    else:
        torch.save(tensors if wrap is None else {wrap: {f"module.{key}": each for key, each in tensors.items()}}, path)
    return str(path)


# ── networks ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("name", "depths", "wide"), [("resnet18", [2, 2, 2, 2], False), ("resnet50", [3, 4, 6, 3], True)]
)
def test_a_resnet_says_what_torchvisions_says(name: str, depths: list[int], wide: bool) -> None:  # noqa: FBT001 - of the table
    torch.manual_seed(1)
    reference = lively(ResNet(depths, wide=wide, classes=5))
    ours = network_of(name, reference.state_dict()).eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(pixels).logits, reference(pixels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "wrap"), [("a.pth", None), ("a.pt", "state_dict"), ("a.bin", "model"), ("a.safetensors", None)]
)
def test_a_file_of_tensors_labels_images(tmp_path: Path, name: str, wrap: str | None) -> None:
    network = resnet18()
    adapter = load(entry(saved(tmp_path, network, name, wrap), labels=["a", "b", "c"]), tmp_path)
    found = labels(adapter, picture(1), picture(2))
    with torch.inference_mode():
        prepared = Preparing(256, 224, architectures()["resnet18"])
        images = [Image.open(io.BytesIO(picture(seed))) for seed in (1, 2)]
        wanted = network(prepared(images, "pt")["pixel_values"]).softmax(1)
    for each, row in zip(found, wanted, strict=True):
        assert dict(each.scores) == pytest.approx(dict(zip("abc", row.tolist(), strict=True)), rel=1e-4)
    adapter.close()


def test_a_thousand_classes_are_those_of_imagenet_and_others_are_numbers(tmp_path: Path) -> None:
    assert (len(imagenet()), imagenet()[0], imagenet()[999]) == (1000, "tench", "toilet tissue")
    (found,) = labels(load(entry(saved(tmp_path, resnet18(1000))), tmp_path))
    assert {label for label, _ in found.scores} <= set(imagenet())
    (found,) = labels(load(entry(saved(tmp_path, resnet18(3))), tmp_path))
    assert {label for label, _ in found.scores} == {"0", "1", "2"}


def test_pixels_are_those_that_torchvision_makes() -> None:
    prepared = Preparing(8, 4, architectures()["resnet18"])
    image = Image.new("RGB", (10, 20), (255, 0, 0))
    pixels = prepared([image], "pt")["pixel_values"]
    assert pixels.shape == (1, 3, 4, 4)
    torch.testing.assert_close(pixels[0, :, 2, 2], torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]))


def test_a_folder_with_one_file_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    saved(folder, resnet18())
    assert labels(load(entry(str(folder)), tmp_path))
    saved(folder, resnet18(), "other.pth")
    with pytest.raises(LoadError, match="several files of weights"):
        load(entry(str(folder)), tmp_path)
    saved(folder, resnet18(), "safe.safetensors")
    assert labels(load(entry(str(folder)), tmp_path)), "what is safe goes first"


def test_the_file_of_a_url_is_taken_from_where_it_is_kept(tmp_path: Path) -> None:
    url = "https://example.org/nets/resnet18.pth?x=1"
    with pytest.raises(LoadError, match="yapit pull mine"):
        load(entry(url), tmp_path)
    kept = file_of(url, tmp_path / "data")
    kept.parent.mkdir(parents=True)
    torch.save(resnet18().state_dict(), kept)
    digest = hashlib.sha256(kept.read_bytes()).hexdigest()
    assert labels(load(entry(url, sha256=digest), tmp_path))


# ── what cannot be loaded ─────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("architecture", "says"),
    [
        (None, "must name its 'architecture'"),
        ("resnet50", "not those of a 'resnet50'"),
        ("vit_b_16", "pip install torchvision"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, architecture: str | None, says: str) -> None:
    with pytest.raises(LoadError, match=says):
        load(entry(saved(tmp_path, resnet18()), architecture), tmp_path)


def test_what_holds_no_tensors_is_refused(tmp_path: Path) -> None:
    for found in ([1, 2], {"a": 1}, {}, {"state_dict": {"a": "b"}}):
        torch.save(found, tmp_path / "a.pth")
        with pytest.raises(LoadError, match="no state dict"):
            load(entry(str(tmp_path / "a.pth")), tmp_path)
    (tmp_path / "a.pth").write_bytes(b"damaged")
    with pytest.raises(LoadError, match="pickle that is broken") as caught:
        load(entry(str(tmp_path / "a.pth")), tmp_path)
    assert str(tmp_path) not in caught.value.message
    torch.save({"fc.bias": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(LoadError, match=r"no 'fc\.weight'"):
        load(entry(str(tmp_path / "a.pth")), tmp_path)


def test_labels_must_be_as_many_as_there_are_classes(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="3 classes; its options have 2 labels"):
        load(entry(saved(tmp_path, resnet18()), labels=["a", "b"]), tmp_path)


class Malice:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    torch.save({**resnet18().state_dict(), "more": Malice(marker)}, tmp_path / "a.pth")
    with pytest.raises(LoadError, match="holds code, which is not run"):
        load(entry(str(tmp_path / "a.pth")), tmp_path)
    assert not marker.exists()


# ── torchvision's own ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_other_networks_are_torchvisions_where_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_model(name: str, weights: None, num_classes: int = 1000) -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))

    torchvision, models = ModuleType("torchvision"), ModuleType("torchvision.models")
    vars(torchvision).update(models=models)
    vars(models).update(get_model=get_model, list_models=lambda module: ["vit_b_16", "googlenet"])
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    path = saved(tmp_path, get_model("vit_b_16", None, 7))
    (found,) = labels(load(entry(path, "vit_b_16"), tmp_path))
    assert len(found.scores) == 7
    for unknown in ("vit_b_17", "googlenet"):
        with pytest.raises(LoadError, match=f"no architecture '{unknown}'"):
            load(entry(path, unknown), tmp_path)


# ── code of the hub ───────────────────────────────────────────────────────────────────────────────────────────────────
HUBCONF = """
import os, pathlib, torch
pathlib.Path(os.environ["MARKER"]).touch()
def net(classes=3):
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, classes))
def number():
    return 3
"""


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    return tmp_path / "marker"


@pytest.fixture
def code(tmp_path: Path) -> str:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "hubconf.py").write_text(HUBCONF)
    return str(folder)


def test_code_that_is_not_listed_does_not_run(tmp_path: Path, marker: Path, code: str) -> None:
    for listed in ([], ["owner/repo:main", str(tmp_path), "*"]):
        with pytest.raises(LoadError, match=r"plugin_settings\.hf-generic\.hub_code"):
            load(entry(None, "net", hub_code=code), tmp_path, hub_code=listed)
    with pytest.raises(LoadError, match="read it"):
        load(entry(None, "net", hub_code="owner/repo:main"), tmp_path, hub_code=[code])
    assert not marker.exists()


def test_code_that_is_listed_makes_the_network_and_tensors_fill_it(tmp_path: Path, marker: Path, code: str) -> None:
    before = torch.hub.get_dir()
    (found,) = labels(load(entry(None, "net", hub_code=code, hub_arguments={"classes": 4}), tmp_path, hub_code=[code]))
    assert len(found.scores) == 4
    assert marker.exists()
    assert torch.hub.get_dir() == before
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    nn.init.constant_(network[2].bias, 0)
    nn.init.constant_(network[2].weight, 0)
    (found,) = labels(load(entry(saved(tmp_path, network), "net", hub_code=code), tmp_path, hub_code=[code]))
    assert [score for _, score in found.scores] == pytest.approx([1 / 3] * 3)
    for name, says in (("number", "makes no network"), ("absent", "does not make 'absent'")):
        with pytest.raises(LoadError, match=says):
            load(entry(None, name, hub_code=code), tmp_path, hub_code=[code])


def test_the_code_of_a_repository_has_a_revision_and_is_kept(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    kept = tmp_path / "data/hub_code/owner_repo_v1"
    with pytest.raises(LoadError, match="offline mode"):
        load(entry(None, "net", hub_code="owner/repo:v1"), tmp_path, hub_code=["owner/repo:v1"])
    kept.mkdir(parents=True)
    (kept / "hubconf.py").write_text(HUBCONF)
    assert labels(load(entry(None, "net", hub_code="owner/repo:v1"), tmp_path, hub_code=["owner/repo:v1"]))
    with pytest.raises(LoadError, match="neither 'owner/repository:revision'"):
        load(entry(None, "net", hub_code="owner/repo"), tmp_path, hub_code=["owner/repo"])


# ── entries ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_name_of_an_architecture_is_enough_for_an_entry() -> None:
    found = plugin.complete_model({"id": "x", "backend": "hf-generic", "options": {"architecture": "resnet50"}})
    url = "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"
    assert found == {
        "backend": "hf-generic",
        "tasks": ["classify"],
        "source": url,
        "options": {"sha256": "11ad3fa6"},
    }
    needed = plugin.weights(entry(url, "resnet50", sha256="11ad3fa6"))
    assert needed == [Weights(source=url, kind="file", sha256="11ad3fa6")]
    licensed = plugin.complete_model({"id": "x", "options": {"architecture": "vit_h_14"}})
    assert licensed is not None
    assert licensed["licence"] == "CC-BY-NC-4.0"


def test_a_file_or_its_url_with_an_architecture_labels_images(tmp_path: Path) -> None:
    (tmp_path / "a.pth").touch()
    for source in ("https://example.org/a.pth", str(tmp_path / "a.pth"), str(tmp_path)):
        found = plugin.complete_model({"source": source, "options": {"architecture": "resnet18"}})
        assert found == {"backend": "hf-generic", "tasks": ["classify"]}
    assert plugin.complete_model({"source": "https://example.org/a.pth"}) is None
    assert plugin.complete_model({"options": {"architecture": "nobody"}}) is None
    assert plugin.complete_model({"options": {"architecture": "resnet18"}, "backend": "other"}) is None


def test_what_code_of_the_hub_brings_is_not_asked_for(code: str) -> None:
    assert plugin.weights(entry(None, "net", hub_code=code)) == []


def test_every_architecture_is_complete() -> None:
    assert len(architectures()) == 78
    for known in architectures().values():
        assert known.sha256 is not None
        assert known.url.endswith(".pth")
        assert known.interpolation in ("bilinear", "bicubic")
        assert known.resize >= known.crop


def test_a_model_of_transformers_is_loaded_as_before(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "m")
    (tmp_path / "m/preprocessor_config.json").write_text(
        '{"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 32}, "crop_pct": 0.9}'
    )
    assert labels(load(entry(str(tmp_path / "m"), None), tmp_path))
