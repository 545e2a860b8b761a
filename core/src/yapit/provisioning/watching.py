"""Those who look on while downloads change."""

import asyncio
from collections.abc import AsyncGenerator

from yapit.store.downloads import Download


class Watcher:
    """Holds what has changed until its reader takes it; of each download only what is last."""

    def __init__(self) -> None:
        self._changed: dict[str, Download] = {}
        self._news = asyncio.Event()
        self._ended = False

    def tell(self, download: Download) -> None:
        """Note how a download is now."""
        self._changed[download.id] = download
        self._news.set()

    def end(self) -> None:
        """Let the reader take what there is, and go."""
        self._ended = True
        self._news.set()

    async def downloads(self) -> AsyncGenerator[Download, None]:
        """Yield what changes."""
        while True:
            await self._news.wait()
            self._news.clear()
            changed, self._changed = self._changed, {}
            for download in changed.values():
                yield download
            if self._ended and not self._changed:
                return
