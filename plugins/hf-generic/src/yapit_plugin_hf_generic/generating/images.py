"""Images of requests: from data URLs, and from the web where that is switched on."""

import asyncio
import base64
import binascii
from collections.abc import Sequence

from PIL import Image

from yapit import InvalidInputError
from yapit_plugin_hf_generic.generating.fetching import Fetcher, FetchRefusedError
from yapit_plugin_hf_generic.options import Settings
from yapit_plugin_hf_generic.pictures import opened


class Images:
    """Reads the images of requests.

    Args:
        settings: whether images are fetched, from where, and how large they may be.
        fetcher: of images of the web; made of the settings when None.
    """

    def __init__(self, settings: Settings, fetcher: Fetcher | None = None) -> None:
        self._settings = settings
        self._fetcher = fetcher or Fetcher(
            hosts=settings.image_hosts, max_bytes=settings.max_image_bytes, timeout_s=settings.image_timeout_s
        )

    def load(self, wanted: Sequence[tuple[str, str]]) -> list[Image.Image]:
        """Return the images of these URLs, RGB and upright; of an animation, its first frame.

        Those of the web are fetched at the same time; not to be called on a thread with an event loop.

        Args:
            wanted: URL, and the request's field that has it.

        Raises:
            InvalidInputError: an image is refused, with the field.
        """
        fetched = self._fetched([item for item in wanted if not _is_data(item[0])])
        limit = self._settings.max_image_bytes
        files = [self._decoded(url, param) if _is_data(url) else fetched[url] for url, param in wanted]
        return [opened(data, param, limit) for data, (_, param) in zip(files, wanted, strict=True)]

    def _decoded(self, url: str, param: str) -> bytes:
        head, comma, text = url.partition(",")
        kind, *flags = head[len("data:") :].lower().split(";")
        if not comma or "base64" not in (flag.strip() for flag in flags) or not kind.startswith("image/"):
            message = "Expected an image as 'data:image/…;base64,…'."
            raise InvalidInputError(message, param=param)
        limit = self._settings.max_image_bytes
        if len(text) * 3 // 4 > limit + 2:
            raise InvalidInputError(f"The image is larger than {limit} bytes.", param=param)
        try:
            data = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidInputError(f"The image is no base64: {error}", param=param) from error
        if len(data) > limit:
            raise InvalidInputError(f"The image is larger than {limit} bytes.", param=param)
        return data

    def _fetched(self, wanted: Sequence[tuple[str, str]]) -> dict[str, bytes]:
        if not wanted:
            return {}
        for url, param in wanted:
            if not url.lower().startswith(("http://", "https://")):
                raise InvalidInputError("Expected an image as a data URL, or at an http or https URL.", param=param)
            if not self._settings.remote_images:
                message = (
                    "Images are not fetched here: send them as 'data:image/…;base64,…', or let the server's owner set "
                    "'remote_images' in plugin_settings.hf-generic."
                )
                raise InvalidInputError(message, param=param)
        return asyncio.run(self._fetch_all(wanted))

    async def _fetch_all(self, wanted: Sequence[tuple[str, str]]) -> dict[str, bytes]:
        async def fetch(url: str, param: str) -> bytes:
            try:
                return await self._fetcher.fetch(url)
            except FetchRefusedError as error:
                raise InvalidInputError(str(error), param=param) from error

        try:
            async with asyncio.TaskGroup() as group:
                tasks = {url: group.create_task(fetch(url, param)) for url, param in dict(wanted).items()}
        except* InvalidInputError as errors:
            refused = errors
        else:
            return {url: task.result() for url, task in tasks.items()}
        raise next(error for error in refused.exceptions if isinstance(error, InvalidInputError))


def _is_data(url: str) -> bool:
    return url[:5].lower() == "data:"
