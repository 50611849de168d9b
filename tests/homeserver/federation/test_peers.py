from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import ConfigurationError, DecodeError
from bridge.etf import Atom
from bridge.homeserver.federation import Peer
from bridge.homeserver.federation.peers import endpoint_of, servers_term
from bridge.jose import Jwk
from bridge.registry import ServerRecord, server_abroad

KEY = Jwk.generate()


def peer(**changes: Any) -> Peer:
    members: dict[str, Any] = {
        "instance": "ruby",
        "urls": ("https://ruby.example:8443",),
        "keys": (KEY.public(),),
    }
    return Peer(**{**members, **changes})


@pytest.mark.parametrize("ca", [None, "-----BEGIN CERTIFICATE-----"])
def test_a_peer_reads_back_from_the_tree(ca: str | None) -> None:
    made = peer(ca=ca, since=7)
    assert Peer.from_term(made.to_term()) == made
    assert made.keyring == {KEY.thumbprint(): KEY.public()}


def test_a_private_key_is_not_told() -> None:
    assert b'"d"' not in peer(keys=(KEY,)).to_term()[Atom("keys")][0]


@pytest.mark.parametrize(
    "change",
    [
        {"instance": ""},
        {"instance": "a@b"},
        {"instance": "i" * 256},
        {"keys": ()},
        {"keys": (KEY.public(),) * 9},
        {"keys": (Jwk.generate("Ed25519"),)},
        {"urls": ()},
        {"urls": ("ftp://ruby.example",)},
        {"urls": ("http://ruby.example",)},
        {"urls": ("https://user:word@ruby.example",)},
        {"urls": ("https://ruby.example/?x=1",)},
        {"urls": ("https://[ruby",)},
        {"urls": ("ruby.example:8443",)},
    ],
)
def test_what_cannot_be_trusted_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        peer(**change)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://[::1]:8080", "http://localhost:1"])
def test_clear_text_stays_on_this_machine(url: str) -> None:
    assert peer(urls=(url,)).urls == (url,)


@pytest.mark.parametrize(
    "term", [None, {}, {Atom("ca"): Atom("undefined")}, {**peer().to_term(), Atom("keys"): [b"x"]}]
)
def test_other_terms_are_no_peer(term: Any) -> None:
    with pytest.raises(DecodeError):
        Peer.from_term(term)


def test_a_server_is_told_to_another_instance_and_known_there_by_both_names() -> None:
    record = ServerRecord(
        server="sim1",
        session=bytes(range(16)),
        key=KEY.public().to_json().encode(),
        thumbprint=KEY.thumbprint(),
        host="127.0.0.1",
        port=4000,
    )
    term = servers_term([endpoint_of(record)])[b"sim1"]
    known = server_abroad(term, "ruby")
    assert known.server == "sim1@ruby"
    assert (known.key, known.thumbprint, known.session) == (record.key, record.thumbprint, record.session)
    assert (known.host, known.port) == ("127.0.0.1", 4000)
