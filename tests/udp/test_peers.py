from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import ConfigurationError
from bridge.jose import Jwk
from bridge.udp.peers import Address, Peer, PeerTable
from tests.support.datagrams import sorted_keys


def peer(name: str, key: int) -> Peer:
    return Peer(name=name, public_key=sorted_keys()[key].public(), address=("192.0.2.1", 1))


@pytest.mark.parametrize(
    "address",
    [
        ("localhost", 1),
        ("192.0.2.1", 0),
        ("192.0.2.1", 65536),
        ("", 1),
        (3221225985, 1),
        (b"\xc0\x00\x02\x01", 1),
        (None, 1),
        ("192.0.2.1", 1.5),
        ("192.0.2.1", "1"),
        ("192.0.2.1", True),
    ],
)
def test_an_address_that_is_not_numeric_or_has_no_port_is_refused(address: Address) -> None:
    """What is not of the type that the socket takes would raise as it is sent to, and stop all others."""
    with pytest.raises(ConfigurationError):
        Peer(name="b", public_key=sorted_keys()[0].public(), address=address)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_numeric_addresses_of_both_families_are_taken(host: str) -> None:
    assert Peer(name="b", public_key=sorted_keys()[0].public(), address=(host, 1)).address == (host, 1)


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        ("2001:DB8::0:1", "2001:db8::1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("::192.0.2.1", "::192.0.2.1"),
    ],
)
def test_an_address_is_spelled_as_the_kernel_spells_it(written: str, spelled: str) -> None:
    """What comes from there would else be from another address, to be proven first."""
    address = Peer(name="b", public_key=sorted_keys()[0].public(), address=(written, 1)).address
    assert address == (spelled, 1)
    listed: Any = [written, 1]
    assert Peer(name="b", public_key=sorted_keys()[0].public(), address=listed).address == address


@pytest.mark.parametrize(("host", "why"), [("::ffff:192.0.2.1", "write 192.0.2.1"), ("fe80::1%eth0", "link")])
def test_an_address_that_no_engine_sends_to_is_refused_and_says_why(host: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Peer(name="b", public_key=sorted_keys()[0].public(), address=(host, 1))


def test_a_key_on_another_curve_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        Peer(name="b", public_key=Jwk.generate("Ed25519").public(), address=("192.0.2.1", 1))


def test_a_private_key_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="private"):
        Peer(name="b", public_key=sorted_keys()[0], address=("192.0.2.1", 1))


def test_an_address_that_is_no_pair_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not a pair"):
        Peer(name="b", public_key=sorted_keys()[0].public(), address="192.0.2.1:7000")  # type: ignore[arg-type]


def test_a_peer_is_found_by_name_and_thumbprint_until_removed() -> None:
    table = PeerTable(maximum=2)
    table.add(peer("b", 0))
    assert table.by_name("b") is table.by_thumbprint(peer("b", 0).thumbprint)
    table.remove("b")
    assert table.by_thumbprint(peer("b", 0).thumbprint) is None
    with pytest.raises(ConfigurationError):
        table.by_name("b")
    assert table.remove("b") is None


def test_a_new_key_takes_the_old_thumbprint_out() -> None:
    """R0-24: a rotated key is refused at once."""
    table = PeerTable(maximum=1)
    table.add(peer("b", 0))
    assert table.add(peer("b", 1)) == peer("b", 0)
    assert table.by_thumbprint(peer("b", 0).thumbprint) is None
    assert len(table) == 1


def test_two_names_do_not_share_a_key() -> None:
    table = PeerTable(maximum=2)
    table.add(peer("b", 0))
    with pytest.raises(ConfigurationError, match="same key"):
        table.add(peer("c", 0))


def test_the_table_is_bounded() -> None:
    table = PeerTable(maximum=1)
    table.add(peer("b", 0))
    with pytest.raises(ConfigurationError, match="max_peers"):
        table.add(peer("c", 1))
