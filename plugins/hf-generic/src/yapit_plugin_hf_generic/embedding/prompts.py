"""Which of a model's prompts an `input_type` means."""

from collections.abc import Mapping

from yapit import InvalidInputError

# What clients and models call the two sides of a search. A model that has no prompt for them reads the texts as they
# are: they are known to every model.
_SIDES = (
    ("query", "search_query", "retrieval_query", "retrieval-query"),
    ("document", "passage", "search_document", "retrieval_document", "retrieval-document", "corpus", "doc"),
)


def prompt_for(input_type: str | None, prompts: Mapping[str, str], default: str | None) -> str:
    """Return what goes before a text.

    Args:
        input_type: what the client asks for, in any case.
        prompts: the model's, by name.
        default: the name of the one for clients that ask for none.

    Raises:
        InvalidInputError: the model knows no such type; the message has those it knows.
    """
    if input_type is None:
        return prompts.get(default, "") if default is not None else ""
    folded = {name.casefold(): text for name, text in prompts.items()}
    wanted = input_type.casefold()
    if wanted in folded:
        return folded[wanted]
    for side in _SIDES:
        if wanted in side:
            return next((folded[name] for name in side if name in folded), "")
    known = dict.fromkeys([*prompts, *(side[0] for side in _SIDES)])
    message = f"The model knows no input_type '{input_type}'. Known: {', '.join(known)}."
    raise InvalidInputError(message, param="input_type")
