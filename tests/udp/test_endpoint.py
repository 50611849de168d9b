from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bridge.errors import ConfigurationError, InvalidStateError, LimitExceededError
from bridge.jose import Jwk, seal_signed_box
from bridge.jose.box import BoxParts, open_parts
from bridge.jose.signature import sign_raw
from bridge.udp.conditions import NetworkConditions
from bridge.udp.config import UdpConfig
from bridge.udp.events import (
    CloseReason,
    MessageReceived,
    PeerUnreachable,
    SessionClosed,
    SessionEstablished,
    StateReceived,
)
from bridge.udp.lone import FEW
from bridge.udp.loss import REORDER_THRESHOLD
from bridge.udp.peers import Peer
from bridge.udp.session import Session
from bridge.udp.statistics import DropReason
from bridge.udp.wire import (
    COOKIE_BYTES,
    DATA,
    INIT,
    MAX_DATAGRAM_BYTES,
    MAX_STATE_BYTES,
    REPLY,
    RETRY,
    Init,
    Parameters,
    encode_init,
    encode_parameters,
    encode_retry,
    parse_datagram_untrusted,
)
from tests.support.datagrams import EPOCH_MS, Host, Network, connected_pair, introduce, sorted_keys

STRANGER = ("198.51.100.7", 7)


def drops(host: Host, reason: DropReason) -> int:
    return host.endpoint.statistics().drops.get(reason, 0)


def established(*hosts: Host) -> Callable[[], bool]:
    return lambda: all(host.of_type(SessionEstablished) for host in hosts)


def make_pair(**config: Any) -> tuple[Network, Host, Host]:
    network = Network()
    low, high, _ = sorted_keys()
    a, b = (
        network.host("a", low, config=UdpConfig(**config)),
        network.host("b", high, config=UdpConfig(**config)),
    )
    introduce(a, b)
    return network, a, b


def captured_init(network: Network, host: Host, peer: str) -> bytes:
    """The INIT a host sends, taken from the wire before it arrives."""
    network.drop = lambda datagram, _source, _target: datagram[0] == INIT
    host.endpoint.connect(peer, now=network.now)
    network.settle(host)
    network.drop = lambda _datagram, _source, _target: False
    return next(datagram for _, _, datagram in network.log if datagram[0] == INIT)


def init_box(sender: Jwk, recipient: Jwk, *, issued_at_ms: int, **changes: Any) -> bytes:
    arguments: dict[str, Any] = {
        "sender": sender,
        "recipient": recipient.public(),
        "session": bytes(16),
        "sequence": 0,
        "issued_at_ms": issued_at_ms,
        "lifetime_ms": 10_000,
        "purpose": "init",
        "direction": "i",
        **changes,
    }
    return encode_init(seal_signed_box(encode_parameters(Parameters(5, 1 << 18)), **arguments).encode())


def with_cookie(init: bytes, network: Network) -> bytes:
    """An INIT with the cookie that came last, or as it was."""
    parsed = parse_datagram_untrusted(init)
    assert isinstance(parsed, Init)
    retries = [datagram for _, _, datagram in network.log if datagram[0] == RETRY]
    return encode_init(parsed.box, retries[-1][-COOKIE_BYTES:]) if retries else init


def watch_decryption(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is handed to the decryption of boxes from here on."""
    opened: list[object] = []

    def watched(box: BoxParts, recipient: Jwk) -> bytes:
        opened.append(box)
        return open_parts(box, recipient)

    monkeypatch.setattr("bridge.jose.signed_box.open_parts", watched)
    return opened


def test_two_datagrams_of_handshake_agree_keys_and_the_first_sealed_ones_confirm_them() -> None:
    """R0-15..22: one signed box each way, directly between the two."""
    network, a, b = connected_pair()
    kinds = [datagram[0] & 0xF0 for _, _, datagram in network.log]
    assert kinds[:2] == [INIT, REPLY]
    assert kinds.count(INIT) == kinds.count(REPLY) == 1
    assert {(source, target) for source, target, _ in network.log} == {
        (a.address, b.address),
        (b.address, a.address),
    }
    assert a.session("b").session_id == b.session("a").session_id


def test_the_first_datagram_is_padded_to_the_full_size_and_the_answer_is_not_larger() -> None:
    network, _, _ = connected_pair()
    init, reply = (datagram for _, _, datagram in network.log[:2])
    assert len(init) == MAX_DATAGRAM_BYTES
    assert len(reply) <= len(init)


def test_states_and_messages_cross_both_ways() -> None:
    network, a, b = connected_pair()
    a.session("b").send_state(b"here", stream=7)
    b.session("a").send_reliable(b"hello")
    network.run(until=lambda: bool(b.of_type(StateReceived) and a.of_type(MessageReceived)))
    (state,) = b.of_type(StateReceived)
    assert (state.peer, state.stream, state.payload) == ("a", 7, b"here")
    assert state.echo_age is not None
    assert 0 < state.echo_age < 1
    assert a.of_type(MessageReceived)[0].payload == b"hello"


def test_a_lost_init_is_repeated_with_identical_bytes() -> None:
    network, a, b = make_pair()
    lost: list[bytes] = []

    def lose_two(datagram: bytes, *_: Any) -> bool:
        if datagram[0] == INIT and len(lost) < 2:
            lost.append(datagram)
            return True
        return False

    network.drop = lose_two
    a.endpoint.connect("b", now=network.now)
    network.run(until=established(a, b))
    inits = {datagram for _, _, datagram in network.log if datagram[0] == INIT}
    assert len(inits) == 1


def test_a_lost_reply_is_repeated_without_another_signature_check() -> None:
    network, a, b = make_pair()
    lost: list[bytes] = []

    def lose_one(datagram: bytes, *_: Any) -> bool:
        if datagram[0] == REPLY and not lost:
            lost.append(datagram)
            return True
        return False

    network.drop = lose_one
    a.endpoint.connect("b", now=network.now)
    network.run(until=established(a, b))
    assert b.endpoint.statistics().handshakes_checked == 1


@pytest.mark.parametrize("seed", range(8))
def test_a_handshake_survives_heavy_loss(seed: int) -> None:
    network = Network(seed=seed)
    low, high, _ = sorted_keys()
    bad = NetworkConditions(delay=0.01, jitter=0.02, loss=0.3, duplicate=0.2)
    a, b = network.host("a", low, conditions=bad), network.host("b", high, conditions=bad)
    introduce(a, b)

    def try_again() -> bool:
        for event in a.of_type(PeerUnreachable):
            a.events.remove(event)
            a.endpoint.connect("b", now=network.now)
        return established(a, b)()

    a.endpoint.connect("b", now=network.now)
    network.run(until=try_again)


def test_a_silent_peer_is_reported_unreachable_and_nothing_is_left() -> None:
    network, a, b = make_pair()
    network.crash(b)
    a.endpoint.connect("b", now=network.now)
    network.run(until=lambda: bool(a.of_type(PeerUnreachable)))
    assert a.endpoint.statistics().handshakes_pending == 0
    assert a.endpoint.get_timer() is None


def test_a_strangers_init_is_dropped_before_any_signature_check() -> None:
    """R0-15..22: only keys that were added are ever looked up."""
    network, a, _ = make_pair()
    stranger = sorted_keys()[2]
    network.inject(init_box(stranger, a.key, issued_at_ms=EPOCH_MS + 100_000), STRANGER, a)
    assert drops(a, DropReason.STRANGER) == 1
    assert a.endpoint.statistics().handshakes_checked == 0
    assert not [entry for entry in network.log if entry[0] == a.address]


def test_a_key_carried_in_the_box_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """R0-15..22 (6): a box that names b but is signed by the key it carries itself is refused unopened."""
    network, a, b = make_pair()
    forger = Jwk.generate("P-256")
    honest = init_box(b.key, a.key, issued_at_ms=EPOCH_MS + 100_000)
    monkeypatch.setattr(
        "bridge.jose.signed_box.sign_raw", lambda data, _key, algorithm: sign_raw(data, forger, algorithm)
    )
    forged = init_box(b.key, a.key, issued_at_ms=EPOCH_MS + 100_000)
    monkeypatch.undo()
    opened = watch_decryption(monkeypatch)
    network.inject(forged, STRANGER, a)
    assert drops(a, DropReason.BAD_BOX) == 1
    assert opened == []
    network.inject(honest, STRANGER, a)
    assert len(opened) == 1


def test_every_sampled_flipped_bit_of_an_init_is_refused_and_never_decrypted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R0-15..22 (7): decryption is never reached after a bad signature (R0-21)."""
    network, a, b = make_pair(handshakes_per_second=1e6, handshake_burst=10_000)
    init = captured_init(network, b, "a")
    opened = watch_decryption(monkeypatch)
    replies = len(network.log)
    for position in range(4, MAX_DATAGRAM_BYTES, 3):
        altered = bytearray(init)
        altered[position] ^= 1 << position % 8
        network.inject(bytes(altered), b.address, a)
    assert opened == []
    assert len(network.log) == replies
    network.inject(init, b.address, a)
    assert len(opened) == 1


def test_every_sampled_flipped_bit_of_a_reply_is_refused_and_the_genuine_one_still_taken() -> None:
    network, a, b = make_pair(handshakes_per_second=1e6, handshake_burst=10_000)
    network.drop = lambda datagram, _source, _target: datagram[0] == REPLY
    a.endpoint.connect("b", now=network.now)
    network.run(until=lambda: any(datagram[0] == REPLY for _, _, datagram in network.log), seconds=1)
    reply = next(datagram for _, _, datagram in network.log if datagram[0] == REPLY)
    network.drop = lambda _datagram, _source, _target: False
    for position in range(0, len(reply), 3):
        altered = bytearray(reply)
        altered[position] ^= 1 << position % 8
        network.inject(bytes(altered), b.address, a)
    assert not a.of_type(SessionEstablished)
    network.inject(reply, b.address, a)
    network.run(until=established(a, b))


def test_every_sampled_flipped_bit_of_a_sealed_datagram_is_refused() -> None:
    network, a, b = connected_pair()
    a.conditioner.cut()
    a.session("b").send_state(b"state")
    network.settle(a)
    sealed = network.log[-1][2]
    for position in range(len(sealed)):
        altered = bytearray(sealed)
        altered[position] ^= 1 << position % 8
        network.inject(bytes(altered), a.address, b)
    assert not b.of_type(StateReceived)
    network.inject(sealed, a.address, b)
    assert len(b.of_type(StateReceived)) == 1


def test_a_replayed_sealed_datagram_is_dropped_and_counted() -> None:
    """R0-24: replay refused."""
    network, a, b = connected_pair()
    a.session("b").send_state(b"once")
    network.run(until=lambda: bool(b.of_type(StateReceived)))
    sealed = [datagram for source, _, datagram in network.log if source == a.address][-1]
    network.inject(sealed, a.address, b)
    assert len(b.of_type(StateReceived)) == 1
    assert drops(b, DropReason.REPLAYED) == 1


def test_a_replayed_init_is_refused_by_its_replay_key() -> None:
    """R0-24: replay refused, after the session it made and even with other token bytes."""
    network, a, b = connected_pair()
    init = next(datagram for _, _, datagram in network.log if datagram[0] == INIT)
    checked = b.endpoint.statistics().handshakes_checked
    network.inject(init, STRANGER, b)
    assert drops(b, DropReason.REPLAYED) == 1
    assert b.endpoint.statistics().handshakes_checked == checked
    assert a.session("b").session_id == b.session("a").session_id


def test_an_init_replayed_after_a_restart_displaces_nothing() -> None:
    """Key confirmation: whoever cannot seal under the new keys gets no session."""
    network, a, b = connected_pair()
    init = next(datagram for _, _, datagram in network.log if datagram[0] == INIT)
    network.crash(b)
    again = network.host("b", b.key, port=b.address[1])
    introduce(a, again)
    network.inject(init, STRANGER, again)
    assert again.endpoint.statistics().handshakes_pending == 1
    network.run(seconds=6)
    assert again.endpoint.statistics().handshakes_pending == 0
    assert again.events == []


def test_an_init_older_than_the_one_that_made_the_session_is_stale() -> None:
    network, _, b = connected_pair()
    low = sorted_keys()[0]
    network.inject(init_box(low, b.key, issued_at_ms=EPOCH_MS + 90_000), STRANGER, b)
    assert drops(b, DropReason.STALE_HANDSHAKE) == 1


@pytest.mark.parametrize("shift_ms", [31_000, -41_000])
def test_an_init_outside_the_clock_limits_is_refused(shift_ms: int) -> None:
    network, a, b = make_pair()
    network.inject(init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000 + shift_ms), a.address, b)
    assert drops(b, DropReason.BAD_BOX) == 1


@pytest.mark.parametrize("change", [{"purpose": "reply"}, {"direction": "r"}])
def test_a_box_for_another_use_is_refused(change: dict[str, Any]) -> None:
    network, a, b = make_pair()
    network.inject(init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000, **change), a.address, b)
    assert drops(b, DropReason.BAD_BOX) == 1


def test_a_box_for_another_recipient_is_refused() -> None:
    network, a, b = make_pair()
    network.inject(init_box(a.key, sorted_keys()[2], issued_at_ms=EPOCH_MS + 100_000), a.address, b)
    assert drops(b, DropReason.BAD_BOX) == 1


def test_handshakes_beyond_the_rate_are_not_checked() -> None:
    network, a, b = make_pair(handshakes_per_second=1.0, handshake_burst=2)
    for number in range(5):
        session = number.to_bytes(16, "big")
        network.inject(init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000, session=session), a.address, b)
    assert b.endpoint.statistics().handshakes_checked == 2
    assert b.endpoint.statistics().retries == 3


def test_pending_handshakes_are_bounded() -> None:
    network, a, b = make_pair(max_pending_handshakes=3)
    for number in range(5):
        box = init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000, session=number.to_bytes(16, "big"))
        network.inject(box, a.address, b)
        network.inject(with_cookie(box, network), a.address, b)
    assert b.endpoint.statistics().handshakes_pending == 3


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.3])
@pytest.mark.parametrize("offset", [0.0, 0.004, 0.006, 0.02])
def test_simultaneous_initiation_ends_in_one_session(delay: float, offset: float) -> None:
    network = Network()
    low, high, _ = sorted_keys()
    conditions = NetworkConditions(delay=delay)
    a, b = network.host("a", low, conditions=conditions), network.host("b", high, conditions=conditions)
    introduce(a, b)
    a.endpoint.connect("b", now=network.now)
    network.run(seconds=offset)
    b.endpoint.connect("a", now=network.now)
    network.run(until=established(a, b))
    network.run(seconds=15)
    assert len(a.of_type(SessionEstablished)) == len(b.of_type(SessionEstablished)) == 1
    assert a.session("b").session_id == b.session("a").session_id


@pytest.mark.parametrize("seed", range(12))
def test_simultaneous_initiation_under_loss_ends_in_one_session(seed: int) -> None:
    network = Network(seed=seed)
    low, high, _ = sorted_keys()
    bad = NetworkConditions(delay=0.02, jitter=0.2, loss=0.25)
    a, b = network.host("a", low, conditions=bad), network.host("b", high, conditions=bad)
    introduce(a, b)
    a.endpoint.connect("b", now=network.now)
    b.endpoint.connect("a", now=network.now)
    network.run(seconds=30)
    for host, peer in ((a, "b"), (b, "a")):
        if host.endpoint.session(peer) is None:
            host.endpoint.connect(peer, now=network.now)
    network.run(seconds=30)
    assert a.session("b").session_id == b.session("a").session_id


def test_a_restarted_peer_displaces_its_old_session_after_confirmation() -> None:
    network, a, b = connected_pair()
    network.crash(a)
    b.session("a").send_reliable(b"never arrived")
    network.run(seconds=0.5)
    again = network.host("a", a.key, port=2000)
    introduce(b, again)
    again.endpoint.connect("b", now=network.now)
    network.run(until=lambda: bool(b.of_type(SessionClosed)))
    (closed,) = b.of_type(SessionClosed)
    assert closed.reason is CloseReason.DISPLACED
    assert closed.undelivered == (b"never arrived",)
    kinds = [type(event) for event in b.events]
    assert kinds.index(SessionClosed) < len(kinds) - 1 - kinds[::-1].index(SessionEstablished)
    network.run(until=established(again))
    assert b.session("a").session_id == again.session("b").session_id


def test_an_address_change_is_followed_once_the_new_address_is_proven() -> None:
    network, a, b = connected_pair()
    network.move(a, ("203.0.113.9", 9))
    a.session("b").send_state(b"moved, in a datagram longer than a challenge")
    network.run(until=lambda: b.session("a").address == ("203.0.113.9", 9))
    b.session("a").send_reliable(b"found you")
    network.run(until=lambda: bool(a.of_type(MessageReceived)))
    assert b.session("a").statistics().address_changes == 1


def test_a_datagram_relayed_from_elsewhere_moves_nothing() -> None:
    """The address is not proven by the datagram: an onlooker can send a copy first."""
    network, a, b = connected_pair()
    a.conditioner.cut()
    a.session("b").send_state(b"intercepted and sent on from another address")
    network.settle(a)
    relayed = network.log[-1][2]
    a.conditioner.mend()
    sent = len(network.log)
    network.inject(relayed, STRANGER, b)
    to_stranger = [datagram for _, target, datagram in network.log[sent:] if target == STRANGER]
    assert sum(map(len, to_stranger)) <= len(relayed)
    network.run(seconds=3)
    assert b.session("a").address == a.address
    assert len(b.of_type(StateReceived)) == 1


def test_closing_tells_the_peer_and_empties_the_tables() -> None:
    network, a, b = connected_pair()
    a.session("b").close(detail="done here")
    network.run(until=lambda: bool(b.of_type(SessionClosed)))
    (closed,) = b.of_type(SessionClosed)
    assert (closed.reason, closed.by_peer, closed.detail) == (CloseReason.APPLICATION, True, "done here")
    assert a.endpoint.statistics().sessions == b.endpoint.statistics().sessions == 0
    assert a.endpoint.get_timer() is None


def test_closing_an_endpoint_closes_its_sessions() -> None:
    network, a, b = connected_pair()
    a.endpoint.close()
    network.run(until=lambda: bool(b.of_type(SessionClosed)))
    assert b.of_type(SessionClosed)[0].reason is CloseReason.SHUTDOWN
    with pytest.raises(InvalidStateError):
        a.endpoint.connect("b", now=network.now)


def test_a_vanished_peer_is_noticed_by_the_idle_time_out() -> None:
    network, a, b = connected_pair()
    network.crash(b)
    network.run(until=lambda: bool(a.of_type(SessionClosed)))
    assert a.of_type(SessionClosed)[0].reason is CloseReason.IDLE


def test_keepalives_hold_an_idle_session_open() -> None:
    network, a, b = connected_pair()
    network.run(seconds=60)
    assert a.session("b").session_id == b.session("a").session_id


def test_another_key_for_a_peer_ends_the_session_of_the_old_one() -> None:
    """R0-24: revocation takes effect at once."""
    network, a, b = connected_pair()
    a.endpoint.add_peer(Peer(name="b", public_key=sorted_keys()[2].public(), address=b.address))
    network.run(until=lambda: bool(a.of_type(SessionClosed)))
    assert a.of_type(SessionClosed)[0].reason is CloseReason.PEER_REMOVED


def test_a_removed_peer_is_a_stranger() -> None:
    network, a, b = connected_pair()
    b.endpoint.remove_peer("a")
    network.run(until=lambda: bool(a.of_type(SessionClosed)))
    a.endpoint.connect("b", now=network.now)
    network.run(until=lambda: drops(b, DropReason.STRANGER) > 0)
    with pytest.raises(ConfigurationError):
        b.endpoint.connect("a", now=network.now)


def test_three_hosts_hold_three_sessions() -> None:
    network = Network()
    hosts = [network.host(name, key) for name, key in zip("abc", sorted_keys(), strict=True)]
    introduce(*hosts)
    for host in hosts:
        for other in hosts:
            if other is not host:
                host.endpoint.connect(other.name, now=network.now)
    network.run(until=lambda: all(host.endpoint.statistics().sessions == 2 for host in hosts))
    network.run(seconds=15)
    assert all(len(host.of_type(SessionEstablished)) == 2 for host in hosts)


def test_an_identity_without_a_private_key_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        Network().host("a", sorted_keys()[0].public())


def test_an_endpoint_is_not_its_own_peer() -> None:
    _, a, _ = make_pair()
    with pytest.raises(ConfigurationError):
        a.endpoint.add_peer(Peer(name="me", public_key=a.key.public(), address=a.address))


def test_a_side_that_has_answered_waits_for_that_handshake_and_then_begins_its_own() -> None:
    network, a, b = make_pair()
    init = captured_init(network, a, "b")
    network.crash(a)
    network.inject(init, a.address, b)
    b.endpoint.connect("a", now=network.now)
    network.run(seconds=1)
    assert not [
        datagram for source, _, datagram in network.log if source == b.address and datagram[0] == INIT
    ]
    network.run(until=lambda: bool(b.of_type(PeerUnreachable)))
    assert [datagram for source, _, datagram in network.log if source == b.address and datagram[0] == INIT]


def test_a_side_that_has_answered_begins_its_own_also_when_the_first_word_is_the_last() -> None:
    network, a, b = make_pair()
    network.drop = lambda datagram, _source, _target: datagram[0] == DATA
    a.endpoint.connect("b", now=network.now)
    network.run(seconds=0.1)
    (session,) = a.endpoint._unconfirmed  # a peer that keeps the protocol has no session to close yet
    b.endpoint.connect("a", now=network.now)
    session.close()
    (farewell, *_) = session.datagrams_to_send(now=network.now)
    network.crash(a)
    network.inject(bytes(farewell.payload), a.address, b)
    network.run(until=lambda: bool(b.of_type(PeerUnreachable)))
    assert [datagram for source, _, datagram in network.log if source == b.address and datagram[0] == INIT]


def test_a_repeated_reply_is_dropped() -> None:
    network, a, b = make_pair()
    network.drop = lambda datagram, source, _target: source == b.address and datagram[0] != REPLY
    a.endpoint.connect("b", now=network.now)
    network.run(seconds=0.1)
    reply = next(datagram for _, _, datagram in network.log if datagram[0] == REPLY)
    network.inject(reply, b.address, a)
    assert drops(a, DropReason.REPLAYED) == 1
    assert not a.of_type(SessionEstablished)


def test_a_side_without_confirmation_gives_up_and_leaves_nothing() -> None:
    """The initiator agreed keys, but nothing sealed ever came back."""
    network, a, b = make_pair()
    network.drop = lambda datagram, source, _target: source == b.address and datagram[0] != REPLY
    a.endpoint.connect("b", now=network.now)
    network.run(until=lambda: bool(a.of_type(PeerUnreachable)))
    network.run(seconds=20)
    assert a.endpoint.statistics().handshakes_pending == 0
    assert a.endpoint.get_timer() is None


def test_a_flood_of_inits_does_not_starve_the_handshakes_this_side_began() -> None:
    network, a, b = make_pair(handshakes_per_second=0.001, handshake_burst=1)
    third = sorted_keys()[2]
    a.endpoint.add_peer(Peer(name="c", public_key=third.public(), address=STRANGER))
    network.inject(init_box(third, a.key, issued_at_ms=EPOCH_MS + 100_000), STRANGER, a)
    network.inject(
        init_box(third, a.key, issued_at_ms=EPOCH_MS + 100_000, session=bytes(15) + b"1"), STRANGER, a
    )
    assert a.endpoint.statistics().retries == 1
    a.endpoint.connect("b", now=network.now)
    network.run(until=established(a, b))


def test_remembered_replay_keys_are_bounded_and_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.udp.admission._MAX_REMEMBERED", 2)
    network, a, b = make_pair()
    for number in range(3):
        session = number.to_bytes(16, "big")
        network.inject(init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000, session=session), a.address, b)
    assert drops(b, DropReason.HANDSHAKE_RATE) == 1
    network.run(seconds=60)
    network.inject(
        init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 160_000, session=bytes(15) + b"9"), a.address, b
    )
    assert drops(b, DropReason.HANDSHAKE_RATE) == 1


def test_a_peer_removed_while_connecting_is_reported_unreachable() -> None:
    network, a, b = make_pair()
    network.crash(b)
    a.endpoint.connect("b", now=network.now)
    network.settle(a)
    a.endpoint.remove_peer("b")
    network.settle(a)
    assert a.of_type(PeerUnreachable) == [PeerUnreachable(peer="b")]
    assert a.endpoint.get_timer() is None


def test_an_endpoint_closed_in_the_middle_of_a_handshake_takes_no_more_of_it() -> None:
    network, a, b = make_pair()
    init = captured_init(network, b, "a")
    b.endpoint.close()
    a.endpoint.close()
    network.inject(init, b.address, a)
    assert drops(a, DropReason.CLOSED) == 1
    assert b.endpoint.statistics().handshakes_pending == 0


def test_under_load_an_init_comes_again_with_the_cookie_and_is_answered() -> None:
    network, a, b = make_pair(handshakes_per_second=0.001, handshake_burst=2)
    third = sorted_keys()[2]
    b.endpoint.add_peer(Peer(name="c", public_key=third.public(), address=STRANGER))
    for number in range(2):
        session = number.to_bytes(16, "big")
        network.inject(init_box(third, b.key, issued_at_ms=EPOCH_MS + 100_000, session=session), STRANGER, b)
    a.endpoint.connect("b", now=network.now)
    network.run(until=established(a, b))
    kinds = [datagram[0] for source, _, datagram in network.log if source != STRANGER and datagram[0] < 0x40]
    assert kinds[-4:] == [INIT, RETRY, INIT, REPLY]
    assert b.endpoint.statistics().retries == 1


def test_under_load_no_sender_is_looked_up_without_a_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    network, a, b = make_pair(handshakes_per_second=0.001, handshake_burst=1)
    network.inject(init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000), a.address, b)
    looked_up: list[bytes] = []
    monkeypatch.setattr("bridge.udp.endpoint.sender_untrusted", looked_up.append)
    for cookie in (b"", b"c" * COOKIE_BYTES):
        network.inject(encode_init(b"whatever", cookie), STRANGER, b)
    assert looked_up == []
    assert b.endpoint.statistics().retries == 2


def test_a_repeated_init_from_elsewhere_is_answered_there_only_once_it_has_a_cookie() -> None:
    """Else one INIT from a victim's address and one from its own make a session that sends to the victim."""
    network, a, b = make_pair()
    init = init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000)
    network.inject(init, a.address, b)
    network.inject(init, STRANGER, b)
    answers = [(target, datagram[0]) for source, target, datagram in network.log if source == b.address]
    assert answers == [(a.address, REPLY), (STRANGER, RETRY)]
    network.inject(with_cookie(init, network), STRANGER, b)
    network.inject(init, STRANGER, b)
    answers = [(target, datagram[0]) for source, target, datagram in network.log if source == b.address]
    assert answers[2:] == [(STRANGER, REPLY), (STRANGER, REPLY)]


def test_a_session_begins_where_the_init_went_wherever_the_reply_says_it_is_from() -> None:
    network, a, b = make_pair()
    network.drop = lambda datagram, *_: datagram[0] == REPLY
    a.endpoint.connect("b", now=network.now)
    network.run(until=lambda: any(datagram[0] == REPLY for _, _, datagram in network.log))
    network.drop = lambda *_: False
    reply = next(datagram for _, _, datagram in network.log if datagram[0] == REPLY)
    network.inject(reply, STRANGER, a)
    network.run(until=established(a, b))
    assert not [target for _, target, _ in network.log if target == STRANGER]
    assert a.session("b").address == b.address


def test_a_retry_nobody_waits_for_or_that_was_answered_is_dropped() -> None:
    network, a, b = make_pair()
    init = captured_init(network, a, "b")
    parsed = parse_datagram_untrusted(init)
    assert isinstance(parsed, Init)
    network.inject(encode_retry(b"another", b"c" * COOKIE_BYTES), b.address, a)
    assert drops(a, DropReason.UNKNOWN_CONNECTION) == 1
    for _ in range(2):
        network.inject(encode_retry(parsed.box, b"c" * COOKIE_BYTES), b.address, a)
    assert drops(a, DropReason.REPLAYED) == 1
    network.run(until=established(a, b))


def test_a_peer_has_only_so_many_handshakes_pending() -> None:
    network, a, b = make_pair(max_pending_per_peer=2)
    for number in range(5):
        session = number.to_bytes(16, "big")
        network.inject(init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000, session=session), a.address, b)
    assert b.endpoint.statistics().handshakes_pending == 2
    assert drops(b, DropReason.HANDSHAKE_RATE) == 3


def test_a_side_that_has_answered_an_init_sends_nothing_more_before_it_is_confirmed() -> None:
    network, a, b = make_pair()
    network.inject(init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000), a.address, b)
    network.crash(a)
    network.run(seconds=20)
    assert [datagram[0] for source, _, datagram in network.log if source == b.address] == [REPLY]
    assert b.endpoint.statistics().handshakes_pending == 0


def crowd(
    count: int, *, config: UdpConfig | None = None, conditions: NetworkConditions | None = None
) -> tuple[Network, Host, list[Host], list[Session]]:
    """A server with a session with each of so many players."""
    network = Network()
    server = network.host("server", Jwk.generate(), config=config, conditions=conditions)
    players = [
        network.host(f"player {n}", Jwk.generate(), config=config, conditions=conditions)
        for n in range(count)
    ]
    for player in players:
        introduce(server, player)
        server.endpoint.connect(player.name, now=network.now)
    network.run(until=established(*players))
    network.run(until=lambda: len(server.endpoint.sessions()) == count)
    return network, server, players, [server.session(player.name) for player in players]


def states(host: Host) -> list[bytes]:
    return [bytes(state.payload) for event in host.of_type(StateReceived) for state in event.states()]


def rows(count: int, tick: int, *, size: int = 100) -> npt.NDArray[np.uint8]:
    """Of each session, a state that tells the tick and which row it is."""
    matrix = np.zeros((count, size), dtype=np.uint8)
    matrix[:, 0], matrix[:, 1] = tick, np.arange(count)
    return matrix


@pytest.mark.parametrize("count", [1, FEW - 1, FEW + 3])
@pytest.mark.parametrize("at_once", [True, False])
def test_each_of_a_crowd_gets_its_own_state(count: int, at_once: bool) -> None:
    network, server, players, sessions = crowd(count)
    for tick in range(3):
        sent = rows(count, tick)
        if at_once:
            numbers = server.endpoint.send_states(sessions, sent, stream=2).tolist()
        else:
            numbers = [
                session.send_state(row.tobytes(), stream=2)
                for session, row in zip(sessions, sent, strict=True)
            ]
        assert numbers == [tick] * count
        network.run(seconds=0.2)
    for n, player in enumerate(players):
        assert states(player) == [rows(count, tick)[n].tobytes() for tick in range(3)]
        assert {event.stream for event in player.of_type(StateReceived)} == {2}
    assert {session.acknowledged_state(2) for session in sessions} == {2}
    assert {session.states_unacknowledged for session in sessions} == {0}
    assert server.endpoint.statistics().datagrams_sent == sum(
        source == server.address for source, _, _ in network.log
    )


def test_states_of_a_crowd_may_be_empty_and_of_any_sizes() -> None:
    network, server, players, sessions = crowd(FEW + 2)
    for size in (0, MAX_STATE_BYTES, 1, 700, 40, 41):  # more sizes than are kept memory for
        server.endpoint.send_states(sessions, np.zeros((len(sessions), size), dtype=np.uint8))
        network.run(seconds=0.1)
        for session in sessions:
            session.send_state(bytes(size))
        network.run(seconds=0.1)
    for player in players:
        assert [len(payload) for payload in states(player)] == [
            size for size in (0, MAX_STATE_BYTES, 1, 700, 40, 41) for _ in range(2)
        ]


def test_a_crowd_on_a_bad_network_with_all_that_sessions_do_besides() -> None:
    """Keys change, players answer, messages go, some move: nothing that is sent is ever refused."""
    count = FEW + 4
    network, server, players, sessions = crowd(
        count,
        config=UdpConfig(rekey_after_datagrams=7, max_ack_delay=0.02),
        conditions=NetworkConditions(delay=0.03, jitter=0.01, loss=0.05),
    )
    for tick in range(60):
        for n, player in enumerate(players):
            if (tick + n) % 3 == 0:
                player.session("server").send_state(b"input")
            if (tick + n) % 20 == 0:
                sessions[n].send_reliable(b"message")
        if tick == 30:
            network.move(players[0], ("192.0.2.77", 7))
        server.endpoint.send_states(sessions[tick % 3 :], rows(count, tick)[tick % 3 :])
        network.run(seconds=1 / 60)
    network.run(seconds=5)
    for n, player in enumerate(players):
        got = [payload[0] for payload in states(player)]
        assert got == sorted(set(got))
        assert len(got) > (40 if n >= 2 else 12)  # the first two are left out of some ticks
        assert {payload[1] for payload in states(player)} == {n}
        assert len(player.of_type(MessageReceived)) == 3
        assert not drops(player, DropReason.FORGED)
        assert not drops(player, DropReason.REPLAYED)
        assert not drops(player, DropReason.KEY_PHASE)
    assert sessions[0].statistics().address_changes == 1
    for session in sessions:
        assert session.states_unacknowledged <= REORDER_THRESHOLD  # no later one tells of the last
        assert session.statistics().rekeys > 1


@pytest.mark.parametrize("size", [100, MAX_STATE_BYTES])
def test_acknowledgements_ride_with_the_states_of_a_crowd_where_there_is_room(size: int) -> None:
    network, server, players, sessions = crowd(2 * FEW + 3, config=UdpConfig(max_ack_delay=0.1))
    talkers = [*players[:FEW], *players[-2:]]  # as many as are done together, and a few with another length
    for _ in range(20):
        players[-1].session("server").send_state(b"input")
        network.run(seconds=0.2)
    for tick in range(4):
        for player in talkers:
            player.session("server").send_state(b"input")
        network.run(seconds=0.01)
        before = len(network.log)
        server.endpoint.send_states(sessions, rows(len(sessions), tick, size=size))
        network.run(seconds=0.003)
        sent = sum(source == server.address for source, _, _ in network.log[before:])
        assert sent == len(sessions) + (len(talkers) if size == MAX_STATE_BYTES else 0)
        network.run(seconds=0.01)
        for player in players:
            assert states(player)[-1][0] == tick
        for player in talkers:
            assert player.session("server").states_unacknowledged == 0


def test_what_a_session_may_not_send_yet_waits_in_it_and_is_superseded() -> None:
    network, server, players, sessions = crowd(3, config=UdpConfig(max_flight_datagrams=2))
    network.drop = lambda _datagram, source, _target: source == players[1].address
    for tick in range(6):
        server.endpoint.send_states(sessions, rows(3, tick))
        network.run(seconds=0.05)
    assert [session.states_waiting for session in sessions] == [0, 1, 0]
    assert [session.statistics().states_superseded for session in sessions] == [0, 3, 0]
    network.drop = lambda _datagram, _source, _target: False
    network.run(seconds=5)
    assert [len(states(player)) for player in players] == [6, 3, 6]
    assert states(players[1])[-1][0] == 5


def test_a_session_that_is_over_is_passed_over_and_the_others_get_theirs() -> None:
    network, server, players, sessions = crowd(3)
    sessions[0].close()
    server.endpoint.send_states(sessions, rows(3, 0))
    network.run(seconds=1)
    sessions[1].close()
    network.run(seconds=1)
    server.endpoint.send_states(sessions, rows(3, 1))
    network.run(seconds=1)
    assert [len(states(player)) for player in players] == [0, 1, 2]


def test_states_given_to_a_crowd_are_withdrawn_and_superseded_as_others_are() -> None:
    network, server, players, sessions = crowd(3)
    server.endpoint.send_states(sessions, rows(3, 0))
    assert [session.states_waiting for session in sessions] == [1, 1, 1]
    sessions[0].drop_states()
    sessions[1].send_state(b"newer")
    server.endpoint.part_states()
    assert [session.states_waiting for session in sessions] == [0, 1, 1]
    server.endpoint.send_states(sessions[2:], rows(1, 1))
    network.run(seconds=1)
    assert states(players[0]) == []
    assert states(players[1]) == [b"newer"]
    assert [payload[0] for payload in states(players[2])] == [1]
    assert [session.statistics().states_superseded for session in sessions] == [1, 1, 1]


def test_what_is_no_crowd_with_a_state_for_each_is_refused_and_nothing_is_sent() -> None:
    network, server, players, sessions = crowd(2)
    stranger = players[0].session("server")
    give = server.endpoint.send_states
    bad: list[tuple[list[Session], Any, int, type[Exception]]] = [
        (sessions, rows(1, 0), 0, ConfigurationError),
        ([sessions[0], sessions[0]], rows(2, 0), 0, ConfigurationError),
        ([sessions[0], stranger], rows(2, 0), 0, ConfigurationError),
        (sessions, [b"0", b"1"], 0, ConfigurationError),
        (sessions, np.zeros((2, 8)), 0, ConfigurationError),
        (sessions, rows(2, 0, size=MAX_STATE_BYTES + 1), 0, LimitExceededError),
        (sessions, rows(2, 0), -1, LimitExceededError),
        (sessions, rows(2, 0), UdpConfig().max_state_streams, LimitExceededError),
    ]
    for given, payloads, stream, error in bad:
        with pytest.raises(error):
            give(given, payloads, stream)
    assert give([], rows(0, 0)).tolist() == []
    before = len(network.log)
    network.run(seconds=0.01)
    assert len(network.log) == before
    assert give(sessions, rows(2, 0)).tolist() == [0, 0]


def test_in_a_signed_session_the_states_of_a_crowd_are_proven() -> None:
    network, server, players, sessions = crowd(3, config=UdpConfig(signed=True))
    with pytest.raises(LimitExceededError):
        server.endpoint.send_states(sessions, rows(3, 0, size=sessions[0].max_state_bytes + 1))
    server.endpoint.send_states(sessions, rows(3, 0))
    network.run(seconds=1)
    assert [payload[1] for player in players for payload in states(player)] == [0, 1, 2]
    assert server.endpoint.statistics().signatures_made == 1


def test_a_fault_in_one_session_ends_that_session_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    network = Network()
    a, b, c = (network.host(name, key) for name, key in zip("abc", sorted_keys(), strict=True))
    introduce(a, b, c)
    for name in "bc":
        a.endpoint.connect(name, now=network.now)
    network.run(until=lambda: len(a.of_type(SessionEstablished)) == 2 and established(b, c)())
    rows = np.zeros((2, 8), dtype=np.uint8)
    a.session("b").send_state(rows)
    rows.shape = (16,)  # what was given is not copied, and must not become something else
    a.session("c").send_state(b"state")
    network.run(until=lambda: bool(b.of_type(SessionClosed) and c.of_type(StateReceived)))
    (closed,) = a.of_type(SessionClosed)
    assert (closed.peer, closed.reason, closed.by_peer) == ("b", CloseReason.FAULT, False)
    assert "IndexError" in closed.detail
    assert b.of_type(SessionClosed)[0].reason is CloseReason.UNKNOWN
    assert "session with b failed" in caplog.text
    assert [session.peer for session in a.endpoint.sessions()] == ["c"]
