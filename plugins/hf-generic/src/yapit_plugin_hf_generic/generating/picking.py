"""The next token of each row of a batch, as its own request wants it: penalties, grammar, temperature, seed.

Each request draws from a generator of its own, so what it gets does not depend on who shares its batch.
"""

import random
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from msgspec import Struct

from yapit import GenerateRequest

_HEAD = 1024  # of the likeliest tokens are looked at first; nearly always that is enough for top_p and min_p
_NEVER = float("-inf")


class Constraint(Protocol):
    """What may be written next."""

    def mask(self, generated: Sequence[int]) -> Any:
        """Return for each token of the vocabulary whether it may follow: booleans, [vocabulary]."""


class Sampling(Struct, frozen=True, kw_only=True):
    """How a token is chosen; the defaults take from all of them by their probability."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0

    @classmethod
    def of(cls, request: GenerateRequest, defaults: Any) -> "Sampling":
        """Return what the request says, and where it says nothing, what the model's generation config does."""

        def value(name: str, otherwise: float) -> Any:
            asked = getattr(request, name)
            own = getattr(defaults, name, None) if asked is None else asked
            return otherwise if own is None else own

        return cls(
            temperature=value("temperature", 1.0),
            top_p=value("top_p", 1.0),
            top_k=int(value("top_k", 0)),
            min_p=value("min_p", 0.0),
            frequency_penalty=request.frequency_penalty or 0.0,
            presence_penalty=request.presence_penalty or 0.0,
            repetition_penalty=value("repetition_penalty", 1.0),
        )

    @property
    def whole(self) -> bool:
        """Whether every token has its chance."""
        return self.top_p >= 1 and not self.top_k and not self.min_p


class Likely(Struct, frozen=True):
    """The log-probability of a chosen token, and the likeliest tokens at its place with theirs."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()

    @classmethod
    def of(cls, row: torch.Tensor, token: int, count: int) -> "Likely":
        """Return what a row of logits, [vocabulary], says of a token, and of the `count` likeliest ones."""
        logprobs = torch.log_softmax(row, dim=-1)
        values, ids = torch.topk(logprobs, min(count, logprobs.shape[-1]))
        return cls(float(logprobs[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


class Picker:
    """Chooses the tokens of one answer.

    Args:
        sampling: how.
        prompt: the tokens read, for the repetition penalty.
        constraint: what may be written, None for anything.
        logit_bias: added to the logits of these tokens.
        seed: the same tokens for the same seed; chance when None.
        logprobs: how many of the likeliest tokens to note with each token, None to note nothing.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        *,
        constraint: Constraint | None = None,
        logit_bias: dict[int, float] | None = None,
        seed: int | None = None,
        logprobs: int | None = None,
    ) -> None:
        self.sampling = sampling
        self.greedy = sampling.temperature <= 0
        self.noted: list[Likely] = []
        self.error: Exception | None = None  # why it cannot go on
        self._prompt = prompt
        self._constraint = constraint
        self._bias = logit_bias or {}
        # It chooses words, not keys.
        self._random = random.Random(seed)  # noqa: S311
        self._logprobs = logprobs
        self._read: torch.Tensor | None = None  # for each token of the vocabulary, whether it is in the prompt
        self._bias_on: tuple[torch.Tensor, torch.Tensor] | None = None

    def __deepcopy__(self, memo: object) -> "Picker":
        """Stay the same one: a request that had to make room and begins again goes on with its picker."""
        return self

    @property
    def idle(self) -> bool:
        """Whether the likeliest token is what it wants, and nobody asks about others."""
        return self.greedy and not self._changes and self._logprobs is None

    @property
    def _changes(self) -> bool:
        wanted = self.sampling
        penalties = wanted.frequency_penalty or wanted.presence_penalty or wanted.repetition_penalty != 1
        return bool(penalties or self._bias or self._constraint is not None)

    def draw(self) -> float:
        """Return a number of its own chance, 0 to 1."""
        return self._random.random()

    def note(self, row: torch.Tensor, token: int) -> None:
        """Keep the log-probabilities of the model's own logits, [vocabulary], if they are wanted."""
        if self._logprobs is not None:
            self.noted.append(Likely.of(row, token, self._logprobs))

    @property
    def notes(self) -> bool:
        """Whether log-probabilities are wanted."""
        return self._logprobs is not None

    def changed(self, row: torch.Tensor, generated: Sequence[int]) -> torch.Tensor:
        """Return the logits, [vocabulary], after bias, penalties and grammar."""
        if not self._changes or self.error is not None:
            return row
        try:
            return self._bound(self._biased(self._penalized(row.clone(), generated)), generated)
        except Exception as error:  # noqa: BLE001 - others share the batch, and must not fail with this one
            self.error = error
            return row

    def _bound(self, row: torch.Tensor, generated: Sequence[int]) -> torch.Tensor:
        if self._constraint is not None:
            allowed = torch.as_tensor(self._constraint.mask(generated), device=row.device)
            allowed = allowed[: row.shape[-1]]
            # Logits beyond the tokenizer's vocabulary are padding.
            row[allowed.shape[-1] :] = _NEVER
            row[: allowed.shape[-1]].masked_fill_(~allowed, _NEVER)
        return row

    def _penalized(self, row: torch.Tensor, generated: Sequence[int]) -> torch.Tensor:
        wanted = self.sampling
        if wanted.repetition_penalty != 1:
            if self._read is None:
                self._read = _marked(torch.zeros_like(row, dtype=torch.bool), self._prompt)
            seen = _marked(self._read.clone(), generated)
            rate = wanted.repetition_penalty
            row = torch.where(seen, torch.where(row < 0, row * rate, row / rate), row)
        if generated and (wanted.frequency_penalty or wanted.presence_penalty):
            ids, counts = torch.tensor(generated, device=row.device).unique(return_counts=True)
            row[ids] -= wanted.frequency_penalty * counts + wanted.presence_penalty
        return row

    def _biased(self, row: torch.Tensor) -> torch.Tensor:
        if not self._bias:
            return row
        if self._bias_on is None:
            known = {token: value for token, value in self._bias.items() if 0 <= token < row.shape[-1]}
            ids = torch.tensor(list(known), dtype=torch.long, device=row.device)
            self._bias_on = ids, torch.tensor(list(known.values()), dtype=row.dtype, device=row.device)
        ids, values = self._bias_on
        row[ids] += values
        return row


def _marked(mask: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """Return a mask, [vocabulary], with the tokens marked; a token of an image may be beyond what can be written."""
    ids = torch.tensor(tokens, dtype=torch.long, device=mask.device)
    mask[ids[ids < mask.shape[-1]]] = True
    return mask


def pick(scores: torch.Tensor, wanted: Sequence[tuple[int, Picker, Sequence[int]]]) -> torch.Tensor:
    """Return the scores with each wanted row turned into a choice: the chosen token's logit is above all others.

    Args:
        scores: logits, float32 [rows, vocabulary].
        wanted: row, its picker, and the tokens its answer has so far.
    """
    if not wanted:
        return scores
    rows = [row for row, _, _ in wanted]
    pickers = [picker for _, picker, _ in wanted]
    changed = torch.stack([picker.changed(scores[row], generated) for row, picker, generated in wanted])
    tokens = _tokens(changed, pickers)
    if any(picker.notes for picker in pickers):
        for row, picker, token in zip(rows, pickers, tokens.tolist(), strict=True):
            picker.note(scores[row], token)
    chosen = torch.full_like(changed, _NEVER)
    chosen.scatter_(1, tokens.unsqueeze(1), 0.0)
    result = scores.clone()
    result[rows] = chosen
    return result


def _tokens(logits: torch.Tensor, pickers: Sequence[Picker]) -> torch.Tensor:
    """Return a token for each row of logits."""
    tokens = logits.argmax(dim=-1)
    drawing = [index for index, picker in enumerate(pickers) if not picker.greedy]
    if drawing:
        tokens[drawing] = _drawn(logits[drawing], [pickers[index] for index in drawing])
    return tokens


def _drawn(logits: torch.Tensor, pickers: Sequence[Picker]) -> torch.Tensor:
    device = logits.device
    temperatures = torch.tensor([picker.sampling.temperature for picker in pickers], device=device)
    logits = logits / temperatures.unsqueeze(1)
    chance = torch.tensor([picker.draw() for picker in pickers], dtype=torch.float64, device=device)
    tokens = torch.empty(len(pickers), dtype=torch.long, device=device)
    whole = [index for index, picker in enumerate(pickers) if picker.sampling.whole]
    cut = [index for index, picker in enumerate(pickers) if not picker.sampling.whole]
    if whole:
        tokens[whole] = _at(torch.softmax(logits[whole].double(), dim=-1), chance[whole])
    if cut:
        tokens[cut] = _cut(logits[cut], [pickers[index].sampling for index in cut], chance[cut])
    return tokens


def _cut(logits: torch.Tensor, wanted: Sequence[Sampling], chance: torch.Tensor) -> torch.Tensor:
    """Draw from the likeliest tokens: the first `top_k`, of these the ones that make up `top_p`, and above `min_p`."""
    size = logits.shape[-1]
    width = min(size, max(_HEAD, *(each.top_k for each in wanted)))
    while True:
        values, ids = torch.topk(logits, width, dim=-1)
        kept, complete = _kept(logits, values, wanted)
        if width == size or complete:
            break
        width = size
    return ids.gather(1, _at(kept, chance).unsqueeze(1)).squeeze(1)


def _kept(logits: torch.Tensor, values: torch.Tensor, wanted: Sequence[Sampling]) -> tuple[torch.Tensor, bool]:
    """Return the probabilities of the sorted head with 0 for what is cut off, and whether the head was enough."""
    device, width = logits.device, values.shape[-1]
    column = {"device": device, "dtype": torch.float64}
    top_k = torch.tensor([each.top_k or width for each in wanted], device=device).unsqueeze(1)
    top_p = torch.tensor([each.top_p for each in wanted], **column).unsqueeze(1)
    min_p = torch.tensor([each.min_p for each in wanted], **column).unsqueeze(1)
    limited = torch.tensor([bool(each.top_k) for each in wanted], device=device).unsqueeze(1)
    inside = torch.arange(width, device=device).unsqueeze(0) < top_k
    head = values.double().masked_fill(~inside, _NEVER)
    total = torch.where(limited, head.logsumexp(-1, keepdim=True), logits.double().logsumexp(-1, keepdim=True))
    probabilities = (head - total).exp()
    before = probabilities.cumsum(-1) - probabilities
    # The first is kept whatever the numbers say.
    keep = (before < top_p) & (probabilities >= min_p * probabilities[:, :1])
    keep[:, 0] = True
    # What lies beyond the head is less likely than its last token.
    beyond = ~limited.squeeze(1) & keep[:, -1]
    return probabilities * keep, not bool(beyond.any())


def _at(probabilities: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
    """Return the index at which each row's cumulated probabilities pass its chance."""
    sums = probabilities.cumsum(-1)
    found = torch.searchsorted(sums, (chance * sums[:, -1]).unsqueeze(1), right=True).squeeze(1)
    last = probabilities.shape[-1] - 1 - (probabilities.flip(-1) > 0).int().argmax(-1)
    return torch.minimum(found, last)
