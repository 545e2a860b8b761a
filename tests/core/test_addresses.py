"""URLs that others name: only public addresses are asked, and exactly those that were looked up."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx
import pytest

from filehost import FileHost, body, redirect, serve_files
from yapit.addresses import Asker, NotPublicError, RefusedURLError, client, host_of, is_public

LOOPBACK = ipaddress.ip_address("127.0.0.1")


@pytest.fixture
def host() -> Iterator[FileHost]:
    with serve_files() as serving:
        yield serving


def asked(
    url: str,
    *,
    names: Mapping[str, Sequence[str]] | None = None,
    headers: Callable[[httpx.URL], Mapping[str, str]] = lambda _: {},
    **how: Any,
) -> tuple[int, bytes]:
    """Ask in a net in which a public name leads to this machine, and this machine may be asked."""
    known = {"public.example": ["127.0.0.1"], **(names or {})}

    async def resolve(name: str, port: int) -> Sequence[str]:
        if name not in known:
            raise socket.gaierror
        return known[name]

    async def ask() -> tuple[int, bytes]:
        allowed = {"allowed": lambda address: is_public(address) or address == LOOPBACK, **how}
        async with client(10) as asking, Asker(asking, resolve=resolve, **allowed).ask("GET", url, headers) as answer:
            return answer.status_code, await answer.aread()

    return asyncio.run(ask())


def test_the_address_that_was_looked_up_is_asked_for_the_name(host: FileHost) -> None:
    host.answers["/x"] = body(b"here")
    assert asked(host.url("/x?a=b", "Public.example.")) == (200, b"here")
    assert host.asked[0]["host"].lower() == f"public.example.:{host.port}"
    assert host.asked[0][":path"] == "/x?a=b"
    assert not {"cookie", "authorization"} & set(host.asked[0])


def test_an_answer_is_given_whatever_its_status(host: FileHost) -> None:
    host.answers["/x"] = body(b"no", 404)
    assert asked(host.url("/x", "public.example")) == (404, b"no")


def test_all_addresses_of_a_host_must_be_allowed(host: FileHost) -> None:
    for addresses in (["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["127.0.0.1", "fe80::1%eth0"], []):
        with pytest.raises(NotPublicError):
            asked(host.url("/x", "both.example"), names={"both.example": addresses})
    assert host.asked == []


def test_another_address_is_asked_where_nobody_listens(host: FileHost) -> None:
    host.answers["/x"] = body(b"here")
    names = {"two.example": ["127.0.0.2", "127.0.0.1"]}
    assert asked(host.url("/x", "two.example"), names=names, allowed=lambda each: each.is_loopback) == (200, b"here")
    with pytest.raises(httpx.ConnectError):
        asked(host.url("/x", "two.example"), names={"two.example": ["127.0.0.2"]}, allowed=lambda _: True)


def test_each_hop_has_its_own_headers(host: FileHost) -> None:
    host.answers |= {"/a": redirect(host.url("/b", "other.example")), "/b": body(b"here")}

    def headers(url: httpx.URL) -> Mapping[str, str]:
        return {"X-For": host_of(url)}

    assert asked(host.url("/a", "public.example"), names={"other.example": ["127.0.0.1"]}, headers=headers)[0] == 200
    assert [each["x-for"] for each in host.asked] == ["public.example", "other.example"]


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("http://10.0.0.1/", "public internet"),
        ("http://inside.example/", "public internet"),
        ("file:///etc/hostname", "http and https only"),
        ("http://user:secret@public.example/", "user name"),
        ("http://public.example:99999/", "port beyond"),
        ("http://unwelcome.example/", "nothing is fetched from this host"),
        ("", "where to"),
    ],
)
def test_a_redirect_leads_nowhere_that_the_url_itself_would_not(host: FileHost, to: str, says: str) -> None:
    host.answers["/a"] = redirect(to)
    names = {"inside.example": ["192.168.0.1"], "10.0.0.1": ["10.0.0.1"], "unwelcome.example": ["127.0.0.1"]}

    def welcome(name: str) -> bool:
        return name != "unwelcome.example"

    for url in (host.url("/a", "public.example"), to):
        if url:
            with pytest.raises(RefusedURLError, match=says) as caught:
                asked(url, names=names, welcome=welcome)
            assert not any(word in str(caught.value) for word in ("10.0", "192.168", "secret"))


def test_a_redirect_to_where_no_transfer_is_secure_is_not_followed() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"location": "http://public.example/"})

    async def resolve(name: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as asking:
            asker = Asker(asking, resolve=resolve, allowed=lambda _: True)
            async with asker.ask("GET", "https://public.example/", lambda _: {}):
                raise AssertionError

    with pytest.raises(RefusedURLError, match="secure"):
        asyncio.run(ask())


def test_a_certificate_is_asked_for_by_the_name() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    async def resolve(name: str, port: int) -> Sequence[str]:
        assert port == 443
        return ["127.0.0.1"]

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as asking:
            asker = Asker(asking, resolve=resolve, allowed=lambda _: True)
            async with asker.ask("HEAD", "https://public.example/x", lambda _: {}):
                pass

    asyncio.run(ask())
    (request,) = seen
    assert (request.method, str(request.url), request.headers["host"]) == (
        "HEAD",
        "https://127.0.0.1/x",
        "public.example",
    )
    assert request.extensions["sni_hostname"] == "public.example"


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 - asked, not bound to
        *("10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.0.1"),
        *("192.0.0.8", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1", "fe80::1", "fc00::1"),
        *("fd00:ec2::254", "ff02::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::"),
        *("2002:a00:1::1", "2001::1", "2001:db8::1", "fec0::1", "100::1", "3fff::1"),
    ],
)
def test_addresses_that_are_not_of_the_public_internet(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"],
)
def test_addresses_that_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
