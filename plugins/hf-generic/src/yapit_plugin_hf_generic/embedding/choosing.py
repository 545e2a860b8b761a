"""Choosing the fastest runtime whose vectors are right: it is asked, and compared with torch in float32."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import psutil
import structlog
import torch
from torch import Tensor

from yapit import LoadError
from yapit.computing import fast_bfloat16
from yapit_plugin_hf_generic.embedding.layout import EmbedOptions, auto_class
from yapit_plugin_hf_generic.embedding.pooling import Finish
from yapit_plugin_hf_generic.embedding.reading import Ids, Reader
from yapit_plugin_hf_generic.embedding.runtimes import Runtime, TorchRuntime
from yapit_plugin_hf_generic.embedding.shelf import Shelf
from yapit_plugin_hf_generic.loading import Loader

_RIGHT = 0.9999  # cosine to float32 at least, of what is chosen by itself …
_AS_ASKED = {"float32": _RIGHT, "bfloat16": 0.99, "int8": 0.9}  # … and of what was asked for; below it, it is wrong
_LONGEST = 256  # tokens of a probe; more where the model looks through a window that is wider
_WIDEST = 1024
_TEXTS = (
    "rain",
    "The cat sleeps on the window sill.",
    "Der Vertrag wurde am 3. November 2025 in Zürich unterschrieben.",
    "def area(radius): return 3.14159 * radius ** 2  # in square metres",
    "今日は天気がいいので、公園まで歩いて行きました。",
    "Shares of the company fell by 12.5 % after it had told its investors that sales would not recover before spring. ",
)
_REASON = 300  # characters of a library's message that are logged
_COPIES = 2  # of the weights in float32, while runtimes are compared: 4.9 GB for 0.6 billion of them
_log = structlog.get_logger(__name__)


class Candidate(NamedTuple):
    """A runtime in a precision."""

    runtime: str
    precision: str


class Choice:
    """Finds the runtime for a model.

    Args:
        loader: of the model.
        options: what the entry asks for.
        reader: makes probes of texts.
        finish: makes vectors of what a runtime says.
        shelf: knows what was found out before.
    """

    def __init__(self, loader: Loader, options: EmbedOptions, reader: Reader, finish: Finish, shelf: Shelf) -> None:
        self._loader = loader
        self._options = options
        self._reader = reader
        self._finish = finish
        self._shelf = shelf
        self._probes = _probes(reader, loader.config)
        self._exact: Any = None  # the model in float32
        self._reference: Tensor | None = None  # and its vectors

    def best(self) -> Runtime:
        """Return the first candidate that is right.

        Raises:
            LoadError: what was asked for is not here, or wrong.
        """
        candidates = self._candidates()
        for candidate in candidates:
            # In torch, what was asked for, or is all that is left, is right.
            checked = candidate.runtime != "torch" or candidate != candidates[-1]
            runtime = self._try(candidate) if checked else self._start(candidate)
            if runtime is not None:
                _log.info(
                    "embedding_runtime",
                    model=self._loader.model.id,
                    runtime=runtime.name,
                    precision=runtime.precision,
                    cosine=self._shelf.cosine(*candidate) if checked else None,
                )
                return runtime
        raise LoadError(f"The model '{self._loader.model.id}' does not run as its options ask; the log says why.")

    # ── candidates ────────────────────────────────────────────────────────────────────────────────────────────────────
    def _candidates(self) -> list[Candidate]:
        """Return what may be, the fastest first."""
        wanted = self._precision
        if self._loader.device.type != "cpu" or self._loader.options.device_map is not None:
            self._refuse_on_gpu()
            return [Candidate("torch", wanted)]
        runtimes = self._runtimes()
        if wanted == "auto" and not self._room():
            _log.warning("embedding_unverified", model=self._loader.model.id, reason="too little memory to compare")
            return [Candidate("torch", wanted)]
        accurate = ["bfloat16", "float32"] if fast_bfloat16() else ["float32"]
        precisions = accurate if wanted == "auto" else [wanted]
        return [Candidate(runtime, precision) for precision in precisions for runtime in runtimes]

    @property
    def _precision(self) -> str:
        return self._options.precision if self._options.precision != "auto" else self._options.dtype

    def _runtimes(self) -> list[str]:
        installed = find_spec("openvino") is not None
        asked, precision = self._options.runtime, self._precision
        if not installed and (asked == "openvino" or precision == "int8"):
            raise LoadError("This model asks for openvino; try: pip install 'yapit-plugin-hf-generic[openvino]'")
        if precision == "int8":
            return ["openvino"]
        if asked != "auto":
            return [asked]
        return ["openvino", "torch"] if installed and precision != "float16" else ["torch"]

    def _refuse_on_gpu(self) -> None:
        if self._options.runtime == "openvino" or self._precision == "int8":
            asked = "int8" if self._precision == "int8" else "openvino"
            raise LoadError(f"The option '{asked}' is for a CPU; here the model runs on {self._loader.device.type}.")

    def _room(self) -> bool:
        """Tell whether the model fits into memory in float32, and a second time as the candidate."""
        folder, config = self._loader.repository.folder, self._loader.config
        stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
        suffix = ".safetensors" if any(folder.glob("*.safetensors")) else ".bin"
        weights = sum(path.stat().st_size for path in folder.glob(f"*{suffix}"))
        whole = weights * (1 if stored == "float32" else 2)
        return bool(whole * _COPIES < psutil.virtual_memory().available)

    # ── trials ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _try(self, candidate: Candidate) -> Runtime | None:
        """Return the candidate if it is right."""
        cosine = self._shelf.cosine(*candidate)
        if cosine is not None and not self._near_enough(candidate, cosine):
            return None
        runtime = self._start(candidate)
        if runtime is None:
            return None
        if cosine is None:
            cosine = self._cosine(runtime)
            self._shelf.note(*candidate, cosine)
        if self._near_enough(candidate, cosine):
            return runtime
        _log.info("embedding_runtime_refused", model=self._loader.model.id, cosine=cosine, **candidate._asdict())
        if candidate.runtime == "openvino":
            self._shelf.drop(candidate.precision)
        return None

    def _near_enough(self, candidate: Candidate, cosine: float) -> bool:
        threshold = _RIGHT if self._precision == "auto" else _AS_ASKED.get(candidate.precision, _RIGHT)
        return cosine >= threshold  # no number is not

    def _start(self, candidate: Candidate) -> Runtime | None:
        if candidate.runtime == "torch":
            return self._start_torch(candidate.precision)
        try:
            return self._start_openvino(candidate.precision)
        except LoadError:
            raise
        except Exception as error:  # noqa: BLE001 - a model that it does not know; the next candidate does
            reason = " ".join(str(error).split())[:_REASON]
            _log.info("embedding_runtime_failed", model=self._loader.model.id, reason=reason, **candidate._asdict())
            self._shelf.drop(candidate.precision)
            return None

    def _start_torch(self, precision: str) -> Runtime:
        if precision == "float32":
            return TorchRuntime(self._model())
        if self._exact is not None:
            self._right()
            self._exact = None  # two at once may be too much
        return TorchRuntime(self._load(None if precision == "auto" else getattr(torch, precision)))

    def _start_openvino(self, precision: str) -> Runtime:
        from yapit_plugin_hf_generic.embedding.vino import VinoRuntime, converted, write

        threads = torch.get_num_threads()
        path = self._shelf.graph(precision)
        if path is not None:
            try:
                return VinoRuntime(path, precision, threads)
            except RuntimeError as error:
                _log.warning("embedding_graph_damaged", model=self._loader.model.id, reason=str(error)[:_REASON])
                self._shelf.drop(precision)
        ids, mask = self._reader.padded(self._probes[0][:2])
        graph = converted(self._model(), ids, mask, int8=precision == "int8")
        path = self._shelf.keep(precision, lambda path: write(graph, path, precision))
        return VinoRuntime(path or graph, precision, threads)

    # ── comparing ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _model(self) -> Any:
        """Return the model in float32."""
        if self._exact is None:
            self._exact = self._load(torch.float32)
        return self._exact

    def _load(self, dtype: torch.dtype | None) -> Any:
        model = self._loader.weights(auto_class(self._loader.config), dtype=dtype)
        model.config.use_cache = False  # nothing follows a text
        return model

    def _right(self) -> Tensor:
        """Return what torch says in float32 to each probe by itself."""
        if self._reference is None:
            exact = TorchRuntime(self._model())
            self._reference = torch.cat([self._vectors(exact, [probe]) for batch in self._probes for probe in batch])
        return self._reference

    def _cosine(self, runtime: Runtime) -> float:
        """Return the least cosine of what a runtime says to the probes in batches."""
        found = torch.cat([self._vectors(runtime, batch) for batch in self._probes])
        return float(torch.cosine_similarity(self._right(), found, dim=1).min())

    def _vectors(self, runtime: Runtime, probes: Sequence[Ids]) -> Tensor:
        ids, mask = self._reader.padded(probes)
        return self._finish(runtime.hidden(ids, mask), torch.from_numpy(mask)).clone()


def _probes(reader: Reader, config: dict[str, Any]) -> list[list[Ids]]:
    """Return texts of several lengths and languages, and a long one beside a short one: batches with padding."""
    window = (config.get("text_config") or config).get("sliding_window") or config.get("local_attention") or 0
    length = window + _LONGEST if isinstance(window, int) and window <= _WIDEST else _LONGEST
    short = reader.read(_TEXTS, truncate=True).ids
    (long,) = reader.read([" ".join(_TEXTS) * length], truncate=True).ids
    return [short, [short[0], long[: min(length, reader.limit)]]]
