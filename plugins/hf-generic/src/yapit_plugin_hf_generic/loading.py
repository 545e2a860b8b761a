"""From a repository to a model in memory: device, precision, and whose code and pickles are trusted."""

import pickle
from typing import Any, NoReturn

import structlog
import torch
import transformers

from yapit import Context, LoadError, Model, OutOfMemoryError
from yapit_plugin_hf_generic.options import Options, settings_of
from yapit_plugin_hf_generic.repositories import Repository

_log = structlog.get_logger(__name__)
_REASON = 300  # characters of a library's message that are passed on


class Loader:
    """Loads what belongs to one model: its weights, its tokenizer, its processor.

    Args:
        model: the catalog entry.
        context: the device, and the plugin's settings.
        options: what the entry says to this plugin.

    Raises:
        LoadError: there is no such device, or the weights are not here and cannot be fetched.
    """

    def __init__(self, model: Model, context: Context, options: Options) -> None:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.model = model
        self.options = options
        self.device = device_of(context.device)
        self.repository = Repository.of(model, fetch=not options.skip_download)
        self.trusted = (model.source or model.id) in settings_of(context).trust_remote_code
        if self.device.type == "cpu" and options.threads is not None:
            torch.set_num_threads(options.threads)

    @property
    def config(self) -> dict[str, Any]:
        """What `config.json` says."""
        return self.repository.config

    def weights(self, auto: Any, *, dtype: torch.dtype | None = None, **arguments: Any) -> Any:
        """Return the model, loaded by the class `auto` and ready to be asked.

        Args:
            auto: a class with `from_pretrained`; the option `architecture` names another one.
            dtype: of the weights; chosen for the device when None.
            arguments: further ones of `from_pretrained`.

        Raises:
            LoadError: it cannot be loaded here, with what to do about it.
        """
        quantised = self._check_quantization()
        kind = self._architecture() or auto
        placed: dict[str, Any] = {}
        if self.options.device_map is not None:
            placed["device_map"] = self.options.device_map
        elif quantised:
            placed["device_map"] = {"": self.device}  # they cannot be moved any more
        if self.options.attn_implementation is not None:
            placed["attn_implementation"] = self.options.attn_implementation
        try:
            found = kind.from_pretrained(
                self.repository.folder,
                dtype=dtype or self.dtype(),
                trust_remote_code=self.trusted,
                weights_only=True,
                **placed,
                **arguments,
            )
            found = found.eval()
            return found if "device_map" in placed else found.to(self.device)
        except Exception as error:  # noqa: BLE001 - whatever a library raises, the person reads one sentence
            self._refuse(error)

    def part(self, auto: Any, **arguments: Any) -> Any:
        """Return the tokenizer, processor or feature extractor that `auto` loads; raises as `weights`."""
        try:
            found = auto.from_pretrained(self.repository.folder, trust_remote_code=self.trusted, **arguments)
        except Exception as error:  # noqa: BLE001 - likewise
            self._refuse(error)
        tokenizer = getattr(found, "tokenizer", found)
        # Without its files, transformers makes a tokenizer of special tokens, to which every word is unknown.
        special = len(getattr(tokenizer, "all_special_ids", ()))
        if special and len(tokenizer) <= special + 1:
            raise LoadError(f"The repository '{self.repository.name}' has no tokenizer.")
        return found

    def dtype(self) -> torch.dtype:
        """Return the precision of the weights: the one that is asked for, or the device's best for these."""
        if self.options.dtype != "auto":
            chosen: torch.dtype = getattr(torch, self.options.dtype)
            return chosen
        text = self.config.get("text_config") or {}
        stored = str(self.config.get("dtype") or self.config.get("torch_dtype") or text.get("dtype") or "float32")
        if self.device.type == "cpu":
            return torch.bfloat16 if stored == "bfloat16" and fast_bfloat16() else torch.float32
        if self.device.type == "cuda" and not torch.cuda.is_bf16_supported():
            return torch.float16
        return torch.float16 if stored == "float16" or self.device.type == "mps" else torch.bfloat16

    def _architecture(self) -> Any:
        name = self.options.architecture
        if name is None:
            return None
        found = getattr(transformers, name, None)
        if found is None or not hasattr(found, "from_pretrained"):
            raise LoadError(f"The model '{self.model.id}' cannot be loaded: transformers has no class '{name}'.")
        return found

    def _check_quantization(self) -> bool:
        """Return whether the weights are quantised; raise `LoadError` if this device cannot compute with them."""
        method = str((self.config.get("quantization_config") or {}).get("quant_method", ""))
        if method and self.device.type != "cuda":
            message = (
                f"The weights of '{self.repository.name}' are quantised ({method}), which needs a GPU; "
                f"here the model runs on {self.device.type}."
            )
            raise LoadError(message)
        return bool(method)

    def _refuse(self, error: Exception) -> NoReturn:
        """Raise what the person can do something about."""
        if isinstance(error, LoadError | torch.OutOfMemoryError | MemoryError | OutOfMemoryError):
            raise error
        name = self.repository.name
        # Where the files are is nothing for those who read it over HTTP.
        said = " ".join(str(error).replace(str(self.repository.folder), name).split())
        if isinstance(error, pickle.UnpicklingError) or "Weights only load failed" in said:
            message = (
                f"The weights of '{name}' are a pickle that is broken, or holds code, which is not run; "
                "other repositories may have the same weights as safetensors."
            )
            raise LoadError(message) from error
        if "trust_remote_code" in said:
            message = (
                f"The repository '{name}' brings its own code, which may do anything; to let it run, read it, "
                "and name the repository in plugin_settings.hf-generic.trust_remote_code."
            )
            raise LoadError(message) from error
        _log.error("load_failed", model=self.model.id, exc_info=error)
        raise LoadError(f"The model '{self.model.id}' cannot be loaded from '{name}': {said[:_REASON]}") from error


def device_of(wanted: str) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda`, `cuda:N` or `mps` means here.

    Raises:
        LoadError: there is none of that kind.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    expected = f"There is no device '{wanted}': expected auto, cpu, cuda, cuda:N or mps."
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise LoadError(expected) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise LoadError(expected)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise LoadError(f"There is no device '{wanted}': this machine has {count} CUDA devices.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise LoadError("There is no device 'mps' on this machine.")
    return device


def fast_bfloat16() -> bool:
    """Tell whether this CPU computes in bfloat16 itself; others are slower in it than in float32."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in checks)
