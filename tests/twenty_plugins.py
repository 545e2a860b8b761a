"""Twenty installed plugins, one of which raises and one of which would be slow to import its model library."""

from pathlib import Path

PLUGIN = """
from yapit import Model, hookimpl

@hookimpl
def register_models():
    return [Model(id="model-{number}", backend="backend-{number}", tasks=("synthesize",))]

@hookimpl
def synthesize(model, context):
    if model.backend != "backend-{number}":
        return None
    import heavy_model_library
    raise AssertionError
"""
HEAVY = "import time\ntime.sleep(10)\n"


def install(site: Path, count: int = 20) -> None:
    """Put `count` distributions into `site` as pip would."""
    (site / "heavy_model_library.py").write_text(HEAVY)
    for number in range(count):
        info = site / f"yapit_plugin_number{number}-1.{number}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: yapit-plugin-number{number}\nVersion: 1.{number}\n"
        )
        (info / "entry_points.txt").write_text(f"[yapit.plugins]\nnumber{number} = yapit_plugin_number{number}\n")
        source = "raise OSError('no GPU driver')\n" if number == 0 else PLUGIN.format(number=number)
        (site / f"yapit_plugin_number{number}.py").write_text(source)
