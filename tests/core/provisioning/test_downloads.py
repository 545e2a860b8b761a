"""Downloads: one for each model, told truly, ended as asked, and resumed by the next process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from core.provisioning.conftest import BIG, MEGABYTE, Make, model
from hub import Hub
from loops import run
from yapit import Model
from yapit.errors import CapacityError, ConflictError, LoadError, NotFoundError
from yapit.provisioning import Arrivals, Downloads
from yapit.provisioning.marks import Marks
from yapit.settings import ProvisioningSettings
from yapit.store import Store
from yapit.store.downloads import Download

ONE = model()
TOTAL = 3 * MEGABYTE + 2


@asynccontextmanager
async def started(make: Make, **changes: object) -> AsyncIterator[Downloads]:
    downloads = make(**changes)
    await downloads.start()
    try:
        yield downloads
    finally:
        await downloads.close()


async def ended(downloads: Downloads, download: Download) -> list[Download]:
    """Return what was told of a download until its end."""
    async with aclosing(downloads.watch(download.id)) as changes:
        return [change async for change in changes]


async def come(downloads: Downloads, download: Download, bytes_done: float) -> Download:
    """Return the download when so many bytes have come."""
    async with aclosing(downloads.watch(download.id)) as changes:
        return await anext(change async for change in changes if change.bytes_done >= bytes_done)


def parts(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*.incomplete") if path.stat().st_size]


# ── one download ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_download_tells_how_far_it_is_and_ends_with_all_of_it_here(hub: Hub, make: Make, store: Store) -> None:
    hold = hub.hold(BIG, MEGABYTE)

    async def main() -> None:
        async with started(make) as downloads:
            assert not await downloads.here(ONE)
            download = await downloads.begin(ONE)
            assert (download.state, download.model, len(download.id)) == ("pending", "org/one", 8)
            await asyncio.to_thread(hold.reached.wait)
            half = await come(downloads, download, MEGABYTE / 2)
            assert (half.state, half.bytes_total, half.files_total) == ("downloading", TOTAL, 2)
            hold.released.set()
            told = await ended(downloads, download)
            last = told[-1]
            assert (last.state, last.bytes_done, last.files_done, last.eta_s) == ("completed", TOTAL, 2, None)
            assert last.finished_at is not None
            assert len(str(last.commit)) == 40
            assert [each.bytes_done for each in told] == sorted(each.bytes_done for each in told)
            assert store.downloads("here") == [downloads[download.id]]
            assert await downloads.here(ONE)

    run(main())
    assert hub.fetched == ["config.json", BIG], "no pickles beside safetensors"


def test_twenty_who_want_a_model_cause_one_transfer(hub: Hub, make: Make) -> None:
    async def main() -> None:
        async with started(make) as downloads:
            begun = await asyncio.gather(*(downloads.begin(ONE) for _ in range(20)))
            assert len({download.id for download in begun}) == 1
            await ended(downloads, begun[0])

    run(main())
    assert hub.fetched == ["config.json", BIG]
    assert hub.sent[BIG] == 3 * MEGABYTE


def test_no_more_than_are_allowed_run_at_a_time(hub: Hub, make: Make) -> None:
    hold = hub.hold(BIG, 1)

    async def main() -> None:
        async with started(make, parallel=1) as downloads:
            one = await downloads.begin(ONE)
            await asyncio.to_thread(hold.reached.wait)
            two = await downloads.begin(model("org/two"))
            assert "GET /api/models/org/two" not in hub.asked
            assert downloads[two.id].state == "pending"
            hold.released.set()
            assert (await ended(downloads, one))[-1].state == "completed"
            assert (await ended(downloads, two))[-1].state == "completed"
            assert [each.id for each in downloads.all()] == [one.id, two.id]

    run(main())


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [("org/gated", 403, "terms"), ("org/none", 404, "no repository")],
)
def test_what_cannot_be_had_says_why(hub: Hub, make: Make, name: str, status: int, said: str) -> None:
    async def main() -> None:
        async with started(make) as downloads:
            last = (await ended(downloads, await downloads.begin(model(name))))[-1]
            assert (last.state, last.error_status) == ("failed", status)
            assert said in last.message

    run(main())
    assert hub.fetched == []


def test_a_download_that_failed_goes_on_under_its_id(hub: Hub, make: Make) -> None:
    hub.refuse(410, BIG)

    async def main() -> None:
        async with started(make) as downloads:
            first = (await ended(downloads, await downloads.begin(ONE)))[-1]
            assert first.state == "failed"
            again = await downloads.resume(first.id)
            assert again.id == first.id
            last = (await ended(downloads, again))[-1]
            assert (last.state, last.message, last.error_code) == ("completed", "", None)

    run(main())


def test_what_is_here_can_be_fetched_anew(hub: Hub, make: Make) -> None:
    async def main() -> None:
        async with started(make) as downloads:
            first = await downloads.begin(ONE)
            await ended(downloads, first)
            again = await downloads.begin(ONE, anew=True)
            assert again.id != first.id
            await ended(downloads, again)

    run(main())
    assert hub.sent[BIG] == 6 * MEGABYTE


# ── ended by somebody ─────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("how", ["pause", "cancel", "keep"])
def test_a_download_is_ended_as_asked(hub: Hub, make: Make, tmp_path: Path, store: Store, how: str) -> None:
    state, kept = "paused" if how == "pause" else "cancelled", how != "cancel"
    hold = hub.hold(BIG, MEGABYTE)

    async def main() -> None:
        async with started(make) as downloads:
            download = await downloads.begin(ONE)
            await asyncio.to_thread(hold.reached.wait)
            await come(downloads, download, MEGABYTE / 2)
            if how == "pause":
                found = await downloads.pause(download.id)
            else:
                found = await downloads.cancel(download.id, keep=how == "keep")
            assert found.state == state
            assert store.downloads("here")[0].state == state
            assert bool(parts(tmp_path)) is kept
            hold.released.set()
            with pytest.raises(ConflictError, match=state):
                await downloads.pause(download.id)
            again = await downloads.begin(ONE)
            assert (again.id == download.id) is (how == "pause")
            assert (await ended(downloads, again))[-1].state == "completed"

    run(main())
    assert (hub.sent[BIG] < 3.1 * MEGABYTE) is kept


def test_what_is_paused_can_be_cancelled_and_its_parts_go(hub: Hub, make: Make, tmp_path: Path) -> None:
    hold = hub.hold(BIG, MEGABYTE)

    async def main() -> None:
        async with started(make) as downloads:
            download = await downloads.begin(ONE)
            await asyncio.to_thread(hold.reached.wait)
            await downloads.pause(download.id)
            hold.released.set()
            assert (await downloads.cancel(download.id)).state == "cancelled"
            assert parts(tmp_path) == []
            with pytest.raises(ConflictError):
                await downloads.resume(download.id)
            with pytest.raises(NotFoundError):
                await downloads.cancel("00000000")

    run(main())


def test_one_that_waits_for_its_turn_is_ended_too(hub: Hub, make: Make) -> None:
    hold = hub.hold(BIG, 1)

    async def main() -> None:
        async with started(make, parallel=1) as downloads:
            one = await downloads.begin(ONE)
            await asyncio.to_thread(hold.reached.wait)
            two = await downloads.begin(model("org/two"))
            assert (await downloads.cancel(two.id)).state == "cancelled"
            hold.released.set()
            assert (await ended(downloads, one))[-1].state == "completed"

    run(main())


# ── the next process ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_download_goes_on_where_the_last_process_ended(hub: Hub, make: Make, store: Store) -> None:
    hold = hub.hold(BIG, 2 * MEGABYTE)

    async def main() -> None:
        async with started(make) as downloads:
            download = await downloads.begin(ONE)
            await asyncio.to_thread(hold.reached.wait)
            await come(downloads, download, MEGABYTE)
        hold.released.set()
        assert store.downloads("here")[0].state == "downloading"
        async with started(make, node="elsewhere") as others:
            assert others.all() == []
        async with started(make) as downloads:
            last = (await ended(downloads, download))[-1]
            assert (last.state, last.id) == ("completed", download.id)
        assert [each.state for each in store.downloads("here")] == ["completed"]

    run(main())
    assert hub.sent[BIG] < 3.2 * MEGABYTE


def test_what_another_process_works_on_is_left_to_it(hub: Hub, make: Make, store: Store, tmp_path: Path) -> None:
    left = Download(id="0123abcd", node="here", model="org/one", state="downloading", created_at=1.0, updated_at=1.0)
    store.put(left)

    async def main() -> None:
        with Marks(tmp_path / "data" / "downloads").held(left.id):
            async with started(make) as downloads:
                assert downloads[left.id] == left
        async with started(make) as downloads:
            assert (await ended(downloads, left))[-1].state == "completed"

    run(main())


def test_watchers_of_all_go_when_all_is_closed(hub: Hub, make: Make) -> None:
    async def main() -> None:
        async with started(make) as downloads:

            async def look() -> list[Download]:
                async with aclosing(downloads.watch()) as changes:
                    return [change async for change in changes]

            looking = asyncio.create_task(look())
            await asyncio.sleep(0)
            await ended(downloads, await downloads.begin(ONE))
            await downloads.close()
            assert (await looking)[-1].state == "completed"
            with pytest.raises(CapacityError):
                await downloads.begin(ONE)

    run(main())


# ── for a request ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_request_waits_a_while_for_weights(hub: Hub, make: Make) -> None:
    hold = hub.hold(BIG, MEGABYTE)

    async def main() -> None:
        async with started(make) as downloads:
            hasty = Arrivals(downloads, ProvisioningSettings(wait_s=0))
            with pytest.raises(CapacityError, match="org/one") as refused:
                await hasty.ready(ONE)
            assert refused.value.code == "model_downloading"
            assert 1 <= (refused.value.retry_after_s or 0) <= 60
            await asyncio.to_thread(hold.reached.wait)
            patient = asyncio.create_task(Arrivals(downloads, ProvisioningSettings(wait_s=20)).ready(ONE))
            with pytest.raises(CapacityError):
                await hasty.ready(ONE)
            hold.released.set()
            await patient
            await hasty.ready(ONE)

    run(main())
    assert hub.sent[BIG] == 3 * MEGABYTE


def test_weights_that_must_not_be_fetched_unasked_are_missing(hub: Hub, make: Make) -> None:
    async def main() -> None:
        async with started(make) as downloads:
            arrivals = Arrivals(downloads, ProvisioningSettings(auto_download=False))
            with pytest.raises(LoadError, match="yapit pull org/one") as refused:
                await arrivals.ready(ONE)
            assert refused.value.code == "weights_missing"

    run(main())
    assert hub.asked == []


def test_a_download_that_failed_is_not_begun_by_every_request(hub: Hub, make: Make) -> None:
    async def main() -> None:
        async with started(make) as downloads:
            arrivals = Arrivals(downloads, ProvisioningSettings())
            for _ in range(3):
                with pytest.raises(LoadError, match="terms"):
                    await arrivals.ready(model("org/gated"))

    run(main())
    assert sum("/api/models/org/gated" in line for line in hub.asked) == 1


def test_models_without_weights_are_ready(make: Make) -> None:
    async def main() -> None:
        async with started(make) as downloads:
            await Arrivals(downloads, ProvisioningSettings(auto_download=False)).ready(
                Model(id="sine", backend="echo", tasks=("synthesize",))
            )

    run(main())
