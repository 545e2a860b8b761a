"""How each token of a vocabulary is written, for the log-probabilities that clients are told."""

from typing import Any

from yapit import LikelyToken, TokenLogprob
from yapit_plugin_hf_generic.generating.picking import Likely


class Spelling:
    """The bytes of a vocabulary's tokens, each looked up once.

    Args:
        tokenizer: whose tokens they are.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, bytes] = {}

    def listed(self, token: int, likely: Likely) -> TokenLogprob:
        """Return a token and the likeliest ones at its place as clients are told of them."""
        top = tuple(LikelyToken(**self._said(each, logprob)) for each, logprob in likely.top)
        return TokenLogprob(**self._said(token, likely.logprob), top=top)

    def bytes_of(self, token: int) -> bytes:
        """Return the UTF-8 of one token, which may be a part of a character."""
        found = self._known.get(token)
        if found is None:
            found = self._known[token] = self._look_up(token)
        return found

    def _said(self, token: int, logprob: float) -> dict[str, Any]:
        data = self.bytes_of(token)
        return {"text": data.decode("utf-8", "replace"), "logprob": logprob, "data": data}

    def _look_up(self, token: int) -> bytes:
        written = self._tokenizer.convert_ids_to_tokens(token)
        if written is None:
            return b""
        text: str = self._tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if "\ufffd" not in text:
            return text.encode()
        if written.startswith("<0x") and written.endswith(">"):
            return bytes([int(written[3:-1], 16)])
        return bytes(_BYTE_OF.get(char, 0x3F) for char in written)


def _byte_alphabet() -> dict[str, int]:
    """Return which byte each character stands for in byte-level vocabularies, as GPT-2 defined it."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
