from dataclasses import dataclass, field

import pytest

from bridge.authority import Accepted, Bind, encode_message
from bridge.errors import InvalidStateError
from bridge.jose import Jwk
from bridge.replication import Payloads
from bridge.sim.dataplane.messages import Credited
from bridge.sim.dataplane.peers import MAX_WAITING, Peer, Peers

KEY = Jwk.generate("P-256").public()


@dataclass
class Wire:
    """A session that keeps what it is given."""

    sent: list[bytes] = field(default_factory=list)
    states: int = 0
    is_signed: bool = False
    max_state_bytes: int = 1_152
    reliable_end: int = 0
    reliable_taken: int = 0

    def send_state(self, payload: Payloads, stream: int = 0) -> None:
        self.states += len(payload)

    def drop_states(self) -> None:
        self.states = 0

    def send_reliable(self, message: bytes) -> None:
        self.sent.append(message)
        self.reliable_end += len(message)


def accepted(epoch: int) -> bytes:
    return encode_message(Accepted(trace=bytes(16), hop=2, entity="ball", epoch=epoch))


@pytest.fixture
def peers() -> Peers:
    known = Peers()
    known.add(server="b", key=KEY, session=b"b" * 16)
    return known


@pytest.fixture
def peer(peers: Peers) -> Peer:
    return peers["b"]


def test_a_new_key_is_another_peer_and_the_same_one_only_another_session(peers: Peers, peer: Peer) -> None:
    assert peers.add(server="b", key=KEY, session=None)
    assert (peers["b"] is peer, peer.session) == (True, None)
    assert not peers.add(server="b", key=Jwk.generate("P-256").public(), session=None)
    assert peers["b"] is not peer


def test_who_is_not_known_has_no_thumbprint_and_can_be_told_nothing(peers: Peers) -> None:
    assert (peers.remove("b"), peers.remove("b")) == (True, False)
    assert peers.thumbprint("b") == ""
    with pytest.raises(InvalidStateError, match="has not told the key of b"):
        peers["b"]


def test_what_waits_goes_after_what_a_session_begins_with(peer: Peer) -> None:
    peer.send(accepted(1), credited=False)
    wire = Wire()
    peer.up(wire, [b"bind"])
    peer.send(accepted(2), credited=False)
    assert wire.sent == [b"bind", accepted(1), accepted(2)]
    assert (peer.waiting, peer.sent) == (0, 2)


def test_what_a_session_did_not_deliver_goes_first_but_for_its_handles(peer: Peer) -> None:
    peer.up(Wire(), [])
    bind = encode_message(Bind(handle=0, entity="ball", epoch=1))
    peer.down([accepted(1), bind, accepted(2)])
    peer.send(accepted(3), credited=False)
    wire = Wire()
    peer.up(wire, [])
    assert wire.sent == [accepted(1), accepted(2), accepted(3)]


def test_more_than_so_many_do_not_wait(peer: Peer) -> None:
    for epoch in range(MAX_WAITING):
        peer.send(accepted(epoch), credited=False)
    with pytest.raises(InvalidStateError, match="wait for b"):
        peer.send(accepted(MAX_WAITING), credited=False)


def test_credit_is_told_of_what_is_watched_once(peers: Peers, peer: Peer) -> None:
    """R0-31."""
    told: list[Credited] = []
    wire = Wire()
    peer.up(wire, [])
    peer.send(b"plain", credited=False)
    peer.send(b"watched", credited=True)
    for taken in (wire.reliable_end - 1, wire.reliable_end, wire.reliable_end):
        wire.reliable_taken = taken
        peers.tell_credit(told.append, taken)
    assert told == [Credited(server="b", message=b"watched", at_ns=wire.reliable_end)]
    assert peer.kept() == 0


def test_links_are_those_that_stand(peers: Peers, peer: Peer) -> None:
    peers.add(server="c", key=KEY, session=None)
    wire = Wire(states=3)
    peer.up(wire, [])
    assert list(peers.links()) == [wire]
    peers.drop_states()
    assert wire.states == 0
