"""Speech from text: one module for each family of models."""

from yapit import Context, Model, Synthesizer
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.options import options_of
from yapit_plugin_hf_generic.speaking.speaker import SpeakingOptions


def synthesizer(model: Model, context: Context) -> Synthesizer:
    """Return the adapter of the family that the model's `config.json` names.

    Raises:
        LoadError: the model cannot be loaded, or transformers has nothing that speaks with it.
    """
    options = options_of(model, SpeakingOptions)
    loader = Loader(model, context, options)
    match loader.config.get("model_type"):
        case "speecht5":
            from yapit_plugin_hf_generic.speaking.speecht5 import SpeechT5Speaker

            return SpeechT5Speaker(loader, options, context)
        case "bark":
            from yapit_plugin_hf_generic.speaking.bark import BarkSpeaker

            return BarkSpeaker(loader)
        case "vits":
            from yapit_plugin_hf_generic.speaking.vits import VitsSpeaker

            return VitsSpeaker(loader, options)
        case "pocket_tts":
            from yapit_plugin_hf_generic.speaking.pocket import PocketSpeaker

            return PocketSpeaker(loader, options)
        case _:
            from yapit_plugin_hf_generic.speaking.general import speaker

            return speaker(loader, options, context)
