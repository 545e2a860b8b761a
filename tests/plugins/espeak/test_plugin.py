import subprocess
import sys
from importlib.metadata import entry_points

from yapit import Context, Model
from yapit_plugin_espeak import register_models, synthesize
from yapit_plugin_espeak.adapter import EspeakSynthesizer


def test_the_entry_point_names_the_package() -> None:
    (entry,) = entry_points(group="yapit.plugins", name="espeak")
    assert entry.value == "yapit_plugin_espeak"


def test_it_brings_one_model_that_speaks() -> None:
    (model,) = register_models()
    assert (model.id, model.backend, model.tasks) == ("espeak", "espeak", ("synthesize",))
    assert (model.sample_rate, model.defaults["voice"], model.licence) == (22050, "en-us", "GPL-3.0-or-later")


def test_the_factory_answers_for_its_backend_alone() -> None:
    (model,) = register_models()
    other = Model(id="other", backend="other", tasks=("synthesize",))
    assert synthesize(other, Context()) is None
    adapter = synthesize(model, Context())
    assert isinstance(adapter, EspeakSynthesizer)
    assert adapter.max_concurrency == 1


def test_importing_the_plugin_and_its_catalog_loads_no_library() -> None:
    code = (
        "import sys, yapit_plugin_espeak as plugin; plugin.register_models();"
        "sys.exit(any(name in sys.modules for name in ('espeakng_loader', 'numpy', 'yapit_plugin_espeak.adapter')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0
