"""Files of URLs: resumed, checked, never too large, and from nowhere that is not public."""

import hashlib
import ipaddress
import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from structlog.testing import capture_logs

from filehost import FileHost, body, chunked, endless, redirect, serve_files
from hub import Generated, Hub, Repo, serve_hub
from live import until
from transferring import small_disk, told, transferring
from yapit import addresses
from yapit.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    RateLimitError,
    RemoteError,
    StoppedError,
    StorageFullError,
    YapitError,
)
from yapit.hub import Patience
from yapit.provisioning.files import FileTransfer
from yapit.provisioning.transfers import Amount, transfer_of
from yapit.settings import ProvisioningSettings
from yapit.weights import Weights

SIZE = 4_000_000
BIG = 200_000_000
CONTENT = Generated(SIZE)
NAME = "model.safetensors"
DATA = b"weights" * 100
QUICK = Patience(tries=3, first_s=0.001)
RECEIVING = Path(__file__).with_name("receiving.py")
Make = Callable[..., FileTransfer]


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the transfer of a URL; addresses of this machine are allowed."""

    def made(url: str, sha256: str | None = None, **settings: Any) -> FileTransfer:
        allowed = {"allow_private_addresses": True, **settings}
        weights = Weights(source=url, kind="file", sha256=sha256)
        return FileTransfer(weights, ProvisioningSettings(**allowed), tmp_path, QUICK)

    return made


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub({"org/tiny": Repo({NAME: CONTENT, "page.bin": b"p"})}) as serving:
        yield serving


@pytest.fixture
def host() -> Iterator[FileHost]:
    with serve_files() as serving:
        yield serving


def at(hub: Hub, name: str = NAME) -> str:
    return f"{hub.url}/org/tiny/resolve/main/{name}"


def fetched(transfer: FileTransfer) -> Path:
    return transfer.fetch(lambda _: None, lambda: False)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


# ── what comes ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_file_comes_whole_and_is_known_without_the_network_from_then_on(hub: Hub, make: Make, tmp_path: Path) -> None:
    transfer, told = make(at(hub)), list[Amount]()
    assert transfer.here() is None
    assert transfer.plan() == Amount(files_done=0, files_total=1, bytes_done=0, bytes_total=SIZE)
    path = transfer.fetch(told.append, lambda: False)
    assert sha256(path) == CONTENT.sha256
    assert path.parent.parent == tmp_path / "files"
    assert path.name == NAME
    assert told[-1] == Amount(files_done=1, files_total=1, bytes_done=SIZE, bytes_total=SIZE)
    hub.asked.clear()
    again = make(at(hub))
    assert again.here() == path
    assert again.plan() == told[-1]
    assert fetched(again) == path
    assert hub.asked == []
    assert left(tmp_path) == [NAME, f"{NAME}.json"]


def test_the_checksum_that_is_given_is_checked_also_of_what_is_here(hub: Hub, make: Make) -> None:
    path = fetched(make(at(hub), CONTENT.sha256.upper()))
    assert make(at(hub), CONTENT.sha256[:8]).here() == path
    assert make(at(hub), "0" * 64).here() is None


def test_other_bytes_than_the_checksum_says_are_not_kept(hub: Hub, make: Make, tmp_path: Path) -> None:
    hub.spoil(NAME, times=None)
    with pytest.raises(RemoteError, match="not the one whose checksum") as caught:
        fetched(make(at(hub), CONTENT.sha256))
    assert caught.value.code == "checksum_mismatch"
    assert left(tmp_path) == []
    assert make(at(hub), CONTENT.sha256).here() is None


def test_a_wrong_part_is_fetched_anew(hub: Hub, make: Make) -> None:
    transfer = make(at(hub), CONTENT.sha256)
    stopped(hub, transfer, 1_000_000)
    part = next(transfer._place.file.parent.glob("*.incomplete"))
    part.write_bytes(bytes(part.stat().st_size))
    assert sha256(fetched(transfer)) == CONTENT.sha256
    assert [each[1] for each in hub.ranges[-2:]] == [f"bytes={part_size(hub)}-", None]


def part_size(hub: Hub) -> int:
    return next(int(str(each[1])[6:-1]) for each in hub.ranges if each[1] not in (None, "bytes=0-0", "bytes=0-"))


def test_a_file_whose_size_nobody_says_comes_too(host: FileHost, make: Make) -> None:
    host.answers["/a.pth"] = chunked(DATA)
    transfer = make(host.url("/a.pth"))
    assert transfer.plan().bytes_total == 0
    assert fetched(transfer).read_bytes() == DATA
    assert make(host.url("/a.pth")).here() is not None


def test_without_any_sign_of_its_end_a_file_needs_a_checksum(host: FileHost, make: Make) -> None:
    host.answers["/a.pth"] = body(DATA, length=-1)
    with pytest.raises(InvalidInputError, match="give its sha256"):
        fetched(make(host.url("/a.pth")))
    assert fetched(make(host.url("/a.pth"), hashlib.sha256(DATA).hexdigest())).read_bytes() == DATA


def test_each_url_has_a_place_of_its_own(host: FileHost, make: Make) -> None:
    host.answers["/a.pth"] = body(DATA)
    places = {make(host.url(path))._place.file for path in ("/a.pth", "/a.pth?v=2", "/b/a.pth")}
    assert len({path.parent for path in places}) == 3
    odd = make(host.url("/x/..%2F..%2F%2e%2e%2fetc%2fpass wd%00.pth"))._place.file
    assert odd.name == "pass_wd_.pth"
    hidden = make(host.url("/.%2e.pth"))._place.file
    assert hidden.name == "pth", "nothing is hidden, and nothing leads upwards"


# ── what goes wrong on the way ────────────────────────────────────────────────────────────────────────────────────────
def stopped(hub: Hub, transfer: FileTransfer, after: int) -> None:
    """Begin a transfer, and stop it after so many bytes."""
    held, halt, errors = hub.hold(NAME, after), threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            transfer.fetch(lambda _: None, halt.is_set)
        except StoppedError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert held.reached.wait(20)
    assert until(lambda: transfer._place.kept_bytes >= after - 65_536)
    halt.set()
    thread.join(20)
    held.released.set()
    assert errors, "the transfer ends while its host is silent"


def test_what_was_stopped_goes_on_where_it_was(hub: Hub, make: Make) -> None:
    transfer = make(at(hub))
    stopped(hub, transfer, 1_000_000)
    kept = make(at(hub)).plan().bytes_done
    assert kept > 900_000
    assert sha256(fetched(make(at(hub)))) == CONTENT.sha256
    name, wanted, condition = hub.ranges[-1]
    assert (name, wanted, condition) == (NAME, f"bytes={kept}-", f'"{CONTENT.sha256}"')


def test_a_file_that_has_changed_meanwhile_begins_anew(hub: Hub, make: Make) -> None:
    stopped(hub, make(at(hub)), 1_000_000)
    other = Generated(SIZE + 5, seed=1)
    hub.repos["models"]["org/tiny"].push({NAME: other})
    assert sha256(fetched(make(at(hub)))) == other.sha256
    assert hub.ranges[-1][1] is not None


def test_a_connection_that_is_cut_is_taken_up_again(hub: Hub, make: Make) -> None:
    for after in (1_000_000, 500_000, 0):
        hub.cut(NAME, after)
    transfer = make(at(hub))
    with capture_logs() as logged:
        assert sha256(fetched(transfer)) == CONTENT.sha256
    assert [each["event"] for each in logged].count("file_try_again") == 3
    assert hub.sent[NAME] < SIZE + 400_000


def test_a_host_without_ranges_begins_anew(hub: Hub, make: Make) -> None:
    hub.ranges_ignored = True
    hub.cut(NAME, 1_000_000)
    assert sha256(fetched(make(at(hub)))) == CONTENT.sha256


def test_a_host_that_sends_another_range_is_not_believed(hub: Hub, make: Make) -> None:
    hub.range_shift = 7
    hub.cut(NAME, 1_000_000)
    assert sha256(fetched(make(at(hub)))) == CONTENT.sha256


def test_an_answer_that_begins_elsewhere_is_not_added(host: FileHost, make: Make) -> None:
    data, half = bytes(range(256)) * 8, 1024
    answers = [
        body(data[:half], length=len(data), ETag='"one"'),
        body(data[: len(data) - half], 206, ETag='"one"', Content_Range=f"bytes 0-{half - 1}/{len(data)}"),
        body(data, ETag='"one"'),
    ]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        answers.pop(0)(handler)

    host.answers["/a.bin"] = answer
    assert fetched(make(host.url("/a.bin"))).read_bytes() == data
    assert [each.get("range") for each in host.asked] == [None, f"bytes={half}-", None]


def test_a_part_that_is_longer_than_the_file_begins_anew(hub: Hub, make: Make) -> None:
    stopped(hub, make(at(hub)), 1_000_000)
    hub.repos["models"]["org/tiny"].push({NAME: (short := Generated(500_000, seed=2))})
    assert sha256(fetched(make(at(hub)))) == short.sha256


def test_a_host_that_ends_too_early_every_time_is_given_up(host: FileHost, make: Make) -> None:
    host.answers["/a.bin"] = body(DATA, length=len(DATA) + 1)
    with pytest.raises(RemoteError, match=r"cannot be fetched: its host cannot be reached|ended early"):
        fetched(make(host.url("/a.bin")))
    assert make(host.url("/a.bin")).here() is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, ForbiddenError), (403, ForbiddenError), (404, NotFoundError), (429, RateLimitError), (503, RemoteError)],
)
def test_what_the_host_refuses_is_said(host: FileHost, make: Make, status: int, kind: type[YapitError]) -> None:
    host.answers["/a.bin"] = body(b"no", status)
    for call in (lambda each: each.plan(), fetched):
        with pytest.raises(kind, match=r"127\.0\.0\.1"):
            call(make(host.url("/a.bin")))
    assert len(host.asked) == (1 + QUICK.tries if status in (429, 503) else 2)


def test_a_page_or_a_packed_file_is_none(host: FileHost, make: Make) -> None:
    host.answers["/a.bin"] = body(b"<html>", Content_Type="text/html; charset=utf-8")
    host.answers["/b.bin"] = body(DATA, Content_Encoding="gzip")
    for path, says in (("/a.bin", "leads to a page"), ("/b.bin", "packed form")):
        with pytest.raises(RemoteError, match=says):
            make(host.url(path)).plan()


def test_a_host_that_is_not_there_is_said_to_be_so(make: Make) -> None:
    with serve_files() as host:
        url = host.url("/a.bin?signature=secret")
    with pytest.raises(RemoteError, match="cannot be reached") as caught:
        make(url).plan()
    assert "secret" not in caught.value.message


def test_offline_nobody_is_asked(hub: Hub, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConflictError, match="offline mode"):
        make(at(hub)).plan()
    assert hub.asked == []


# ── how large it may be ───────────────────────────────────────────────────────────────────────────────────────────────
def test_a_file_that_says_it_is_too_large_is_not_begun(hub: Hub, make: Make, tmp_path: Path) -> None:
    for call in (lambda each: each.plan(), fetched):
        with pytest.raises(InvalidInputError, match="larger than") as caught:
            call(make(at(hub), max_file_bytes=SIZE - 1))
        assert caught.value.code == "file_too_large"
    assert left(tmp_path) == []
    assert fetched(make(at(hub), max_file_bytes=SIZE)).stat().st_size == SIZE


def test_a_file_without_end_is_left_when_it_is_too_large(host: FileHost, make: Make, tmp_path: Path) -> None:
    host.answers["/a.pt"] = endless
    with pytest.raises(InvalidInputError, match=r"larger than 1\.0 MB"):
        fetched(make(host.url("/a.pt"), max_file_bytes="1MB"))
    assert left(tmp_path) == []


# ── where from ────────────────────────────────────────────────────────────────────────────────────────────────────────
def resolving(monkeypatch: pytest.MonkeyPatch, **names: str) -> None:
    """Let public names lead to this machine, whose address counts as public; others are as they are."""
    known = {name.replace("_", "."): address for name, address in names.items()}

    async def resolve(host: str, port: int) -> Sequence[str]:
        return [known.get(host, host)]

    public, loopback = addresses.is_public, ipaddress.ip_address("127.0.0.1")
    monkeypatch.setattr(addresses, "resolve", resolve)
    monkeypatch.setattr(addresses, "is_public", lambda address: address == loopback or public(address))


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1"])  # noqa: S104
def test_this_machine_is_not_asked_unless_that_is_allowed(host: FileHost, make: Make, name: str) -> None:
    with pytest.raises(InvalidInputError, match="allow_private_addresses") as caught:
        make(host.url("/a.bin", name), allow_private_addresses=False).plan()
    assert caught.value.code == "address_refused"
    assert host.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.5",
        "192.168.1.1",
        "172.16.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "240.0.0.1",
        "fe80::1",
        "::ffff:10.0.0.1",
    ],
)
def test_a_redirect_or_a_name_that_leads_to_a_private_address_is_refused(
    host: FileHost, make: Make, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    resolving(monkeypatch, public_example="127.0.0.1", inside_example=address)
    literal = f"[{address}]" if ":" in address else address
    host.answers["/name.bin"] = redirect("http://inside.example/a.bin")
    host.answers["/address.bin"] = redirect(f"http://{literal}/a.bin")
    for url in (
        "http://inside.example/a.bin",
        host.url("/name.bin", "public.example"),
        host.url("/address.bin", "public.example"),
    ):
        with pytest.raises(InvalidInputError, match="public internet") as caught:
            fetched(make(url, allow_private_addresses=False))
        assert address not in caught.value.message


def test_a_name_is_looked_up_once_and_that_address_is_asked(
    host: FileHost, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [["127.0.0.1"], ["127.0.0.1"], ["10.0.0.1"]]  # for HEAD, which this host does not know, and for GET

    async def resolve(name: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    resolving(monkeypatch)
    monkeypatch.setattr(addresses, "resolve", resolve)
    host.answers["/a.bin"] = body(DATA)
    make(host.url("/a.bin", "public.example"), allow_private_addresses=False).plan()
    assert answers == [["10.0.0.1"]]
    assert host.asked[0]["host"] == f"public.example:{host.port}"


def test_no_proxy_of_the_environment_is_asked(host: FileHost, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    host.answers["/a.bin"] = body(DATA)
    assert fetched(make(host.url("/a.bin"))).read_bytes() == DATA


def test_redirects_are_followed_and_not_for_ever(host: FileHost, make: Make) -> None:
    host.answers |= {"/a.bin": redirect("/b.bin"), "/b.bin": body(DATA), "/c.bin": redirect("/c.bin")}
    assert fetched(make(host.url("/a.bin"))).read_bytes() == DATA
    with pytest.raises(InvalidInputError, match="more than 5 redirects"):
        make(host.url("/c.bin")).plan()
    host.answers["/c.bin"] = redirect("file:///etc/hostname")
    with pytest.raises(InvalidInputError, match="http and https only"):
        make(host.url("/c.bin")).plan()


def test_a_token_is_told_to_its_host_and_to_no_other(
    host: FileHost, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, one_example="127.0.0.1", two_example="127.0.0.1", sub_one_example="127.0.0.1")
    host.answers |= {"/a.bin": redirect(host.url("/b.bin", "two.example")), "/b.bin": body(DATA)}
    tokens = {"one.example": "t0ken", "example": "never"}
    fetched(make(host.url("/a.bin", "One.example"), tokens=tokens))
    for each in host.asked:
        told = "Bearer t0ken" if each["host"].startswith("one.") else None
        assert each.get("authorization") == told
    host.asked.clear()
    make(host.url("/b.bin", "sub.one.example"), tokens=tokens).plan()
    assert "authorization" not in host.asked[0]


def test_no_secret_of_a_url_is_told(host: FileHost, make: Make) -> None:
    host.answers["/a.bin"] = body(b"", 503)
    transfer = make(host.url("/a.bin?X-Signature=s3cret"), tokens={"127.0.0.1": "t0ken"})
    with capture_logs() as logged, pytest.raises(RemoteError) as caught:
        fetched(transfer)
    said = f"{logged} {caught.value!r} {transfer.source} {transfer._wanted!r}"
    assert logged
    assert "s3cret" not in said
    assert "t0ken" not in said
    host.answers["/a.bin"] = body(DATA)
    facts = fetched(transfer).with_name("a.bin.json").read_text()
    assert "s3cret" not in facts
    assert host.asked[-1][":path"] == "/a.bin?X-Signature=s3cret"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://user:s3cret@example.org/a.bin", "user name or a password"),
        ("https://user@example.org/a.bin", "user name or a password"),
        ("https://example.org/a.zip", r"\.safetensors, \.pth, \.pt, \.bin"),
        ("https://example.org/a", r"\.safetensors, \.pth, \.pt, \.bin"),
        ("https://example.org/?file=a.bin", r"\.safetensors, \.pth, \.pt, \.bin"),
        ("ftp://example.org/a.bin", "https://"),
        ("https:///a.bin", "https://"),
        ("https://example.org:99999/a.bin", "https://"),
        ("https://[bad/a.bin", "https://"),
    ],
)
def test_only_urls_of_weights_are_taken(make: Make, url: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as caught:
        make(url)
    assert "s3cret" not in caught.value.message
    assert caught.value.param == "source"


# ── leaving, other processes, a full disk ─────────────────────────────────────────────────────────────────────────────
def test_what_is_removed_is_gone_and_counted(hub: Hub, make: Make, tmp_path: Path) -> None:
    transfer = make(at(hub))
    stopped(hub, transfer, 1_000_000)
    kept = transfer._place.kept_bytes
    assert transfer.discard() == kept
    assert left(tmp_path) == []
    fetched(transfer)
    assert transfer.discard() == 0
    assert transfer.delete() == SIZE
    assert transfer.delete() == 0
    assert transfer.here() is None
    assert left(tmp_path) == []


def test_what_is_being_written_is_not_removed(hub: Hub, make: Make) -> None:
    transfer = make(at(hub))
    held = hub.hold(NAME, 1_000_000)
    thread = threading.Thread(target=fetched, args=[transfer])
    thread.start()
    assert held.reached.wait(20)
    assert make(at(hub)).discard() == 0
    assert make(at(hub)).delete() == 0
    held.released.set()
    thread.join(20)
    assert transfer.here() is not None


def test_a_transfer_is_made_of_weights(tmp_path: Path) -> None:
    weights = Weights(source="https://example.org/a.bin", kind="file")
    assert isinstance(transfer_of(weights, ProvisioningSettings(), tmp_path), FileTransfer)


def receiving(
    hub: Hub, folder: Path, *more: str, before: tuple[str, ...] = ()
) -> AbstractContextManager[subprocess.Popen[str]]:
    """Run a process that fetches, until the block is left."""
    return transferring(RECEIVING, at(hub), str(folder), *more, before=before)


def test_a_process_that_is_killed_is_resumed_by_the_next_one(tmp_path: Path) -> None:
    with serve_hub({"org/tiny": Repo({NAME: Generated(BIG)})}) as hub:
        held = hub.hold(NAME, BIG * 6 // 10)
        with receiving(hub, tmp_path) as process:
            assert held.reached.wait(60)
            process.send_signal(signal.SIGKILL)
            process.wait(20)
        held.released.set()
        with receiving(hub, tmp_path) as process:
            last = told(process)[-1]
        assert last["kept"] > BIG * 0.5
        assert Path(last["file"]).stat().st_size == BIG
        assert sha256(Path(last["file"])) == Generated(BIG).sha256
        assert hub.sent[NAME] < BIG * 1.05


def test_two_processes_make_one_transfer(hub: Hub, tmp_path: Path) -> None:
    held = hub.hold(NAME, 1_000_000)
    with receiving(hub, tmp_path) as one, receiving(hub, tmp_path) as other:
        for process in (one, other):
            assert process.stdout is not None
            while json.loads(process.stdout.readline()).get("bytes", 0) < 500_000:
                pass  # the one that waits knows how far the other is
        held.released.set()
        ends = [told(process)[-1] for process in (one, other)]
    assert ends[0]["file"] == ends[1]["file"]
    assert hub.sent[NAME] < SIZE + 200_000, "and what the plans did not wait for"


def test_a_disk_without_room_is_refused_before_the_first_byte(hub: Hub, tmp_path: Path) -> None:
    with receiving(hub, tmp_path, before=small_disk("16m", tmp_path)) as process:
        end = told(process)[-1]
    assert end["code"] == "storage_full"
    assert end["left"] == 0


def test_a_disk_that_fills_meanwhile_loses_the_part(hub: Hub, tmp_path: Path) -> None:
    held = hub.hold(NAME, 1_000_000)
    with receiving(hub, tmp_path, "fill", before=small_disk("72m", tmp_path)) as process:
        assert process.stdout is not None
        while json.loads(process.stdout.readline()).get("bytes", 0) < 500_000:
            pass  # then it has filled the disk
        held.released.set()
        end = told(process)[-1]
    assert (end["code"], end["left"]) == (StorageFullError.code, 0)
