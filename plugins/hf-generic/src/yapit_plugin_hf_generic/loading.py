"""From a repository to a model in memory: device, precision, and whose code and pickles are trusted."""

import pickle
from pathlib import Path
from typing import Any, NoReturn

import structlog
import torch
import transformers

from yapit import Context, LoadError, Model, OutOfMemoryError
from yapit.catalog import folder_of
from yapit.computing import device_of, fast_bfloat16
from yapit_plugin_hf_generic.needs import codec_of
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
            arguments |= self._codec()
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

    def _codec(self) -> dict[str, Any]:
        """Return what makes a processor load its codec from here, after that is here."""
        names = ("processor_config.json", "audio_tokenizer_config.json")
        codec = codec_of({name: said for name in names if isinstance(said := self.repository.json(name), dict)})
        if codec is None or folder_of(codec) is not None:
            return {}
        Repository.at(codec, fetch=not self.options.skip_download)
        return {"local_files_only": True}

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
        refuse(self.model.id, self.repository.name, self.repository.folder, error)


def refuse(model_id: str, name: str, folder: Path, error: Exception) -> NoReturn:
    """Raise what the person can do something about; of `name`, whose files are in `folder`, which nobody is told."""
    if isinstance(error, LoadError | torch.OutOfMemoryError | MemoryError | OutOfMemoryError):
        raise error
    # Where the files are is nothing for those who read it over HTTP.
    said = " ".join(str(error).replace(str(folder), name).split())
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
    _log.error("load_failed", model=model_id, exc_info=error)
    raise LoadError(f"The model '{model_id}' cannot be loaded from '{name}': {said[:_REASON]}") from error
