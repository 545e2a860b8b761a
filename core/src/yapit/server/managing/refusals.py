"""What is refused, in the words that clients of this API know."""

from msgspec import UNSET, UnsetType

from yapit.errors import InvalidInputError, ModelNotFoundError, YapitError


class RefusedError(Exception):
    """An error of ours, told in the words that clients of this API know.

    Args:
        cause: what is wrong, with its status.
        message: a sentence for people.
        error: the same in short; what `cause` says when None.
        status: of the download that was wanted.
    """

    def __init__(
        self, cause: YapitError, message: str, *, error: str | None = None, status: str | UnsetType = UNSET
    ) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.error = error or cause.message
        self.status = status


def not_in_cache(name: str) -> RefusedError:
    """Return the refusal for a model that is not here, or not at all."""
    message = f"Model not found in cache: {name}"
    return RefusedError(ModelNotFoundError(message, param="model_name"), message, error="Model does not exist")


def unknown_action(action: str, known: tuple[str, ...]) -> RefusedError:
    """Return the refusal for something that cannot be done with a model."""
    cause = InvalidInputError(f"Unknown action: {action}. Known: {', '.join(known)}.", param="action")
    return RefusedError(cause, f"Unknown action: {action}", error=f"Unknown action: {action}")


def unknown_source(source: str, known: tuple[str, ...]) -> RefusedError:
    """Return the refusal for a source of models that nobody knows."""
    listed = f"Must be one of: [{', '.join(known)}]"
    cause = InvalidInputError(f"Invalid source: {source}. {listed}", param="source", code="invalid_source")
    return RefusedError(cause, f"Invalid source. {listed}", error=f"Invalid source: {source}")


def not_downloaded(name: str, cause: YapitError) -> RefusedError:
    """Return the refusal for a model whose download could not begin, or failed."""
    return RefusedError(cause, f"Failed to download model '{name}'", status="failed")
