from __future__ import annotations

import contextlib
import datetime
import ssl
from pathlib import Path

import httpx
import pytest

from bridge.cluster.certificates import create_authority, issue_certificate
from bridge.errors import ConfigurationError
from bridge.homeserver.rest.serve import Listening, serving
from tests.support.cluster import erlang
from tests.support.rest import Rest


def test_a_port_alone_is_of_this_machine() -> None:
    assert Listening.at("8080") == Listening(host="127.0.0.1", port=8080)
    assert Listening.at("[::1]:0") == Listening(host="::1", port=0)


@pytest.mark.parametrize("address", ["", "here", "127.0.0.1:", "127.0.0.1:65536"])
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(ConfigurationError, match="HOST:PORT"):
        Listening.at(address)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_beyond_this_machine_there_is_tls_or_nothing(host: str) -> None:
    """R1-28."""
    with pytest.raises(ConfigurationError, match="--https-cert"):
        Listening(host=host)
    assert Listening(host=host, tls_certificate=Path("c"), tls_key=Path("k")).scheme == "https"


def test_half_of_tls_is_none() -> None:
    with pytest.raises(ConfigurationError, match="both"):
        Listening(tls_certificate=Path("c"))


def test_a_proxy_is_an_address_or_a_network() -> None:
    assert Listening(proxies=("10.0.0.0/8", "::1")).proxies == ("10.0.0.0/8", "::1")
    with pytest.raises(ConfigurationError, match="proxy"):
        Listening(proxies=("balancer",))


@erlang
async def test_it_serves_over_tls(rest: Rest, tmp_path: Path) -> None:
    """R1-28."""
    now = datetime.datetime.now(datetime.UTC)
    authority = create_authority(tmp_path, name="test", days=1, now=now)
    issued = issue_certificate(tmp_path, "127.0.0.1", days=1, now=now, installed_at=None)
    key = issued.file.parent / "node.key"
    trust = ssl.create_default_context(cafile=authority.file)
    async with (
        serving(rest.app, Listening(tls_certificate=issued.file, tls_key=key)) as (url, _),
        httpx.AsyncClient(verify=trust, base_url=url) as client,
    ):
        assert url.startswith("https://127.0.0.1:")
        assert (await client.get("/v1/openapi.json")).status_code == 200


@erlang
async def test_the_head_of_a_request_has_a_bound(rest: Rest) -> None:
    async with (
        serving(rest.app, Listening()) as (url, _),
        httpx.AsyncClient(base_url=url) as client,
    ):
        assert (await client.get("/health", headers={"X": "x" * 10_000})).status_code == 200
        # As a whole, or cut off while it comes.
        with contextlib.suppress(httpx.TransportError):
            assert (await client.get("/health", headers={"X": "x" * 1_000_000})).status_code == 400


@erlang
async def test_a_port_that_is_taken_and_files_that_are_none_are_said(rest: Rest, tmp_path: Path) -> None:
    async with serving(rest.app, Listening()) as (url, _):
        with pytest.raises(ConfigurationError, match="cannot listen"):
            async with serving(rest.app, Listening.at(url.rpartition(":")[2])):
                pass
    nothing = tmp_path / "nothing.pem"
    with pytest.raises(ConfigurationError, match="TLS certificate"):
        async with serving(rest.app, Listening(tls_certificate=nothing, tls_key=nothing)):
            pass
