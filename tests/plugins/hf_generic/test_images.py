"""Images that requests bring or name: read safely, and fetched from nowhere but the public web."""

import ipaddress
import re
import socket
import struct
import threading
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from yapit import InvalidInputError
from yapit.addresses import Address, is_public
from yapit_plugin_hf_generic import pictures
from yapit_plugin_hf_generic.generating.fetching import Fetcher
from yapit_plugin_hf_generic.generating.images import Images
from yapit_plugin_hf_generic.options import Settings

PARAM = "messages[0].content[1].image_url"


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    data = BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64encode(data).decode()}"


def load(url: str, **settings: Any) -> Image.Image:
    [image] = Images(Settings(**settings)).load([(url, PARAM)])
    return image


def refused(read: Callable[[], object], says: str | None = None) -> InvalidInputError:
    with pytest.raises(InvalidInputError, match=says) as caught:
        read()
    assert caught.value.param == PARAM
    return caught.value


RED = Image.new("RGB", (6, 4), (250, 0, 0))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_images_of_the_usual_formats_are_read(kind: str) -> None:
    image = load(data_url(encoded(RED, kind), "image/whatever"))
    assert (image.mode, image.size) == ("RGB", (6, 4))
    found = image.getpixel((3, 2))
    assert isinstance(found, tuple)
    assert all(abs(value - meant) < 12 for value, meant in zip(found, (250, 0, 0), strict=True))


@pytest.mark.parametrize("kind", ["PPM", "ICO", "PDF", "EPS", "TGA"])
def test_other_formats_are_not_read_whatever_they_are_called(kind: str) -> None:
    refused(lambda: load(data_url(encoded(RED, kind))), "must be one of JPEG")


def test_an_svg_is_no_image() -> None:
    refused(lambda: load(data_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml")), "must be one of")


def test_an_image_is_turned_as_its_camera_was_held() -> None:
    image = RED.copy()
    image.putpixel((0, 0), (0, 0, 250))
    exif = Image.Exif()
    exif[0x0112] = 6  # its right side is up
    found = load(data_url(encoded(image, "PNG", exif=exif)))
    assert found.size == (4, 6)
    assert found.getpixel((3, 0)) == (0, 0, 250)


def test_what_is_transparent_is_white() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (9, 8, 7, 255))
    found = load(data_url(encoded(image)))
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (9, 8, 7)]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "I;16"])
def test_every_kind_of_pixel_becomes_rgb(mode: str) -> None:
    if mode == "I;16":
        image = Image.frombytes("I;16", (2, 2), struct.pack("<4H", *[0xFFFF, 0x8000, 0, 0x0100]))
    else:
        image = Image.new("RGB", (2, 2), (255, 255, 255)).convert(mode)
    found = load(data_url(encoded(image, "TIFF"), "image/tiff"))
    assert found.mode == "RGB"
    assert found.getpixel((0, 0)) == (255, 255, 255)
    if mode == "I;16":
        assert found.getpixel((1, 0)) == (128, 128, 128)


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (3, 3), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert load(data_url(data, "image/gif")).getpixel((1, 1)) == (250, 0, 0)


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png,abc",
        "data:image/png;base64",
        "data:text/html;base64,PGI+",
        "data:;base64,PGI+",
        "data:image/png;base64,*",
        "data:image/png;base64,abc",
    ],
)
def test_a_data_url_that_is_none_is_refused(url: str) -> None:
    refused(lambda: load(url), "base64")


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", encoded(RED)[:-30], encoded(RED, "JPEG")[:200]])
def test_damaged_images_are_refused(data: bytes) -> None:
    refused(lambda: load(data_url(data)), "cannot be read")


def test_an_image_of_too_many_bytes_is_refused() -> None:
    data = encoded(RED)
    assert load(data_url(data), max_image_bytes=len(data)).size == (6, 4)
    error = refused(lambda: load(data_url(data), max_image_bytes=len(data) - 1), "larger than")
    assert str(len(data) - 1) in error.message


def bomb(width: int, height: int) -> bytes:
    """Return the beginning of a PNG that says it is this large."""
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("size", [(8000, 8000), (10_000, 10_000), (100_000, 100_000)])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_unpacked(size: tuple[int, int]) -> None:
    refused(lambda: load(data_url(bomb(*size))), f"more than {pictures.MAX_PIXELS} pixels")


def test_remote_images_are_fetched_only_where_that_is_switched_on() -> None:
    refused(lambda: load("https://example.org/x.png"), "not fetched here")
    for url in ("/etc/hostname", "file:///etc/hostname", "ftp://example.org/x.png", "example.org/x.png", ""):
        refused(lambda: load(url, remote_images=True), "http or https")


class Web:
    """A server on this machine that other names lead to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.go_on = threading.Event()
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append((self.headers["Host"], self.path))
                web.headers.append(dict(self.headers))
                web.answer(self)

            def log_message(self, *given: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        data = encoded(RED)
        path, _, to = handler.path.partition("?")
        kind = {"/page": "text/html", "/none": ""}.get(path, "image/png")
        if path == "/redirect":
            handler.send_response(int(to[:3]))
            handler.send_header("Location", to[4:])
            handler.end_headers()
            return
        handler.send_response(404 if path == "/missing" else 304 if path == "/odd" else 200)
        if kind:
            handler.send_header("Content-Type", kind)
        if path == "/packed":
            handler.send_header("Content-Encoding", "gzip")
        if path == "/said":
            handler.send_header("Content-Length", "1000000")
        if path == "/nonsense":
            handler.send_header("Content-Length", "many")
        handler.end_headers()
        if path == "/slow":
            self.go_on.wait()
        if path in {"/endless", "/dripping"}:
            self.pour(handler, *((10_000, 0) if path == "/endless" else (1, 0.02)))
        elif path != "/odd":
            handler.wfile.write(data)

    def pour(self, handler: BaseHTTPRequestHandler, count: int, pause_s: float) -> None:
        try:
            while not self.go_on.wait(pause_s):
                handler.wfile.write(bytes(count))
        except OSError:
            self.asked.append(("", "hung up"))


@pytest.fixture
def web() -> Iterator[Web]:
    found = Web()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.go_on.set()
    found.server.shutdown()
    found.server.server_close()
    thread.join()


LOOPBACK = ipaddress.ip_address("127.0.0.1")


def fetched(url: str, *, names: Mapping[str, Sequence[str]] | None = None, **how: Any) -> Image.Image:
    """Fetch an image from a web in which public names lead to this machine, and this machine may be asked."""
    known = {"public.example": ["127.0.0.1"], "sub.public.example": ["127.0.0.1"], **(names or {})}

    async def resolve(host: str, port: int) -> Sequence[str]:
        if host not in known:
            raise socket.gaierror
        return known[host]

    def allowed(address: Address) -> bool:
        return is_public(address) or address == LOOPBACK

    given: dict[str, Any] = {"max_bytes": 100_000, "timeout_s": 20.0, "resolve": resolve, "allowed": allowed} | how
    [image] = Images(Settings(remote_images=True), Fetcher(**given)).load([(url, PARAM)])
    return image


def test_an_image_is_fetched_from_the_address_that_was_looked_up(web: Web) -> None:
    assert fetched(f"http://Public.example:{web.port}/x.png?a=b").size == (6, 4)
    assert web.asked == [(f"public.example:{web.port}", "/x.png?a=b")]
    assert web.headers[0]["Accept-Encoding"] == "identity"
    assert not {"Cookie", "Authorization"} & set(web.headers[0])


def test_the_name_is_looked_up_once_so_no_second_answer_can_lead_elsewhere(web: Web) -> None:
    answers = [["127.0.0.1"], ["10.0.0.1"]]

    async def resolve(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    assert fetched(f"http://public.example:{web.port}/", resolve=resolve).size == (6, 4)
    assert answers == [["10.0.0.1"]]


def test_several_images_are_fetched_and_each_once(web: Web) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    fetcher = Fetcher(max_bytes=10_000, timeout_s=20, resolve=resolve, allowed=lambda _: True)
    one, two = (f"http://{name}.example:{web.port}/" for name in ("one", "two"))
    found = Images(Settings(remote_images=True), fetcher).load(
        [(one, "a"), (two, "b"), (one, "c"), (data_url(encoded(RED)), "d")]
    )
    assert [image.size for image in found] == [(6, 4)] * 4
    assert len(web.asked) == 2


def test_the_field_of_the_image_that_failed_is_named(web: Web) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    fetcher = Fetcher(max_bytes=10_000, timeout_s=20, resolve=resolve, allowed=lambda _: True)
    wanted = [(f"http://a:{web.port}/slow", "first"), (f"http://a:{web.port}/missing", "second")]
    with pytest.raises(InvalidInputError, match="404") as caught:
        Images(Settings(remote_images=True), fetcher).load(wanted)
    assert caught.value.param == "second"


def test_this_machine_is_never_asked(web: Web) -> None:
    for host in (
        "localhost",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0.0.0.0",  # noqa: S104 - asked, not bound to
        "[::1]",
        "[::ffff:127.0.0.1]",
    ):
        error = refused(lambda: load(f"http://{host}:{web.port}/x.png", remote_images=True))
        assert not re.search(r"127\.0|::1|Errno", error.message), error.message
    assert web.asked == []


def test_the_reason_says_that_the_host_is_not_public_and_not_where_it_is() -> None:
    names = {"intranet.example": ["10.1.2.3"], "both.example": ["93.184.215.14", "192.168.7.7"], "none.example": []}
    for host in names:
        error = refused(lambda: fetched(f"http://{host}/", names=names), "public internet")
        assert not any(address in error.message for addresses in names.values() for address in addresses)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(web: Web, status: int) -> None:
    assert fetched(f"http://public.example:{web.port}/redirect?{status}:/x.png").size == (6, 4)
    to = f"http://sub.public.example:{web.port}/y.png"
    assert fetched(f"http://public.example:{web.port}/redirect?{status}:{to}").size == (6, 4)
    assert web.asked[-1] == (f"sub.public.example:{web.port}", "/y.png")


def test_a_redirect_leads_nowhere_that_the_url_itself_would_not(web: Web) -> None:
    start = f"http://public.example:{web.port}/redirect?302:"
    names = {"intranet.example": ["10.1.2.3"], "metadata.example": ["169.254.169.254"]}
    for to in ("http://intranet.example/", "http://metadata.example/latest/"):
        refused(lambda: fetched(start + to, names=names), "public internet")
    for to in ("file:///etc/hostname", "ftp://public.example/", "gopher://public.example/"):
        refused(lambda: fetched(start + to), "http and https only")
    refused(lambda: fetched(start + f"http://user:secret@public.example:{web.port}/"), "user name")
    refused(lambda: fetched(start), "where to")
    elsewhere = f"{start}http://sub.public.example:{web.port}/"
    refused(lambda: fetched(elsewhere, hosts=("public.example",)), "nothing is fetched from this host")


def test_redirects_in_a_circle_end(web: Web) -> None:
    inner = "/x.png"
    for _ in range(3):
        inner = f"/redirect?302:{inner}"
    assert fetched(f"http://public.example:{web.port}{inner}").size == (6, 4)
    refused(lambda: fetched(f"http://public.example:{web.port}/redirect?302:{inner}"), "more than 3 redirects")


def test_only_listed_hosts_are_asked_where_there_is_a_list(web: Web) -> None:
    def ask(host: str, *hosts: str) -> Image.Image:
        return fetched(f"http://{host}:{web.port}/", hosts=hosts)

    assert ask("public.example", "other.example", "PUBLIC.example").size == (6, 4)
    assert ask("sub.public.example", "*.public.example").size == (6, 4)
    web.asked.clear()
    for host, listed in (
        ("public.example", "*.public.example"),
        ("sub.public.example", "public.example"),
        ("public.example", "lic.example"),
        ("sub.public.example", "*.lic.example"),
    ):
        refused(lambda: ask(host, listed), "nothing is fetched from this host")
    assert web.asked == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/page", "not lead to an image"),
        ("/none", "not lead to an image"),
        ("/missing", "404"),
        ("/odd", "304"),
        ("/packed", "packed form"),
        ("/said", "larger than 100000"),
        ("/endless", "larger than 100000"),
        ("/nonsense", "could not be fetched"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(web: Web, path: str, says: str) -> None:
    refused(lambda: fetched(f"http://public.example:{web.port}{path}"), says)


def test_a_host_that_takes_too_long_is_left(web: Web) -> None:
    for path in ("/slow", "/dripping"):
        refused(lambda: fetched(f"http://public.example:{web.port}{path}", timeout_s=0.2), "within 0.2 seconds")


def test_a_host_that_is_not_there_is_said_to_be_so(web: Web) -> None:
    names = {"gone.example": ["127.0.0.1"]}
    port = web.port
    web.server.socket.close()
    error = refused(lambda: fetched(f"http://gone.example:{port}/", names=names), "does not answer")
    assert "127" not in error.message
    for url in (
        "http://",
        "http://[::bad/",
        f"http://{'a' * 300}.example/",
        "http://x\ny/",
        "http://public.example:99999/",
    ):
        refused(lambda: fetched(url))


def test_another_address_of_the_host_is_tried_if_the_first_is_dead(web: Web) -> None:
    # 127.0.0.2 is this machine as well, and nothing listens there.
    names = {"two.example": ["127.0.0.2", "127.0.0.1"]}
    allowed = {"allowed": lambda address: address.is_loopback}
    assert fetched(f"http://two.example:{web.port}/", names=names, **allowed).size == (6, 4)
