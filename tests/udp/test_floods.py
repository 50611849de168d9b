"""What strangers can make an endpoint do: nothing that costs anybody else more than it cost them."""

from __future__ import annotations

import gc
from collections import Counter, deque
from collections.abc import Callable
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge.errors import BridgeError
from bridge.jose import seal_signed_box
from bridge.udp.bucket import TokenBucket
from bridge.udp.config import UdpConfig
from bridge.udp.endpoint import Endpoint
from bridge.udp.events import SessionEstablished
from bridge.udp.handshake import HandshakeState, HandshakeTimes, Initiator, Responder
from bridge.udp.keys import Aead
from bridge.udp.peers import Address, Peer
from bridge.udp.session import Session
from bridge.udp.statistics import DropReason
from bridge.udp.wire import (
    COOKIE_BYTES,
    DATA,
    REPLY,
    RETRY,
    Init,
    Parameters,
    Reply,
    Retry,
    encode_init,
    encode_parameters,
    encode_reply,
    parse_datagram_untrusted,
)
from tests.support.datagrams import EPOCH_MS, Host, Network, introduce, single_datagrams, sorted_keys

VICTIMS: list[Address] = [("198.51.100.1", 1), ("198.51.100.2", 2)]
READABLE: list[Address] = [("203.0.113.1", 1), ("203.0.113.2", 2)]
SERVER: Address = ("192.0.2.1", 1)

sources = st.sampled_from([*VICTIMS, *READABLE])


class Amplification(RuleBasedStateMachine):
    """A peer that holds a good key and sends from addresses not its own, against one honest endpoint.

    It can read at some addresses. At the others, bytes out must never exceed bytes in.
    """

    def __init__(self) -> None:
        super().__init__()
        low, high, _ = sorted_keys()
        self.now = 100.0
        self.key = low
        self.random = Random(7)
        self.server_peer = Peer(name="server", public_key=high.public(), address=SERVER)
        self.server = Endpoint(
            UdpConfig(handshake_burst=4, max_pending_handshakes=6, initial_rtt=0.01),
            identity=high,
            random_bytes=Random(8).randbytes,
            unix_ms=self.unix_ms,
        )
        self.server.add_peer(Peer(name="attacker", public_key=low.public(), address=READABLE[0]))
        self.bytes_in: Counter[Address] = Counter()
        self.bytes_out: Counter[Address] = Counter()
        self.initiators: list[Initiator] = []
        self.cookies: list[bytes] = [b"", bytes(COOKIE_BYTES)]
        self.boxes: list[bytes] = []
        self.sessions: list[Session] = []
        self.kept: deque[bytes] = deque(maxlen=20)

    def unix_ms(self) -> int:
        return EPOCH_MS + int(self.now * 1000)

    def send(self, datagram: bytes, source: Address) -> None:
        self.bytes_in[source] += len(datagram)
        self.kept.append(datagram)
        self.server.receive_datagram(datagram, source, now=self.now)
        self.collect()

    def collect(self) -> None:
        while self.server.next_event() is not None:
            pass
        for datagram, target in single_datagrams(self.server.datagrams_to_send(now=self.now)):
            self.bytes_out[target] += len(datagram)
            if target in READABLE:
                self.read(datagram, target)

    def read(self, datagram: bytes, address: Address) -> None:
        match parse_datagram_untrusted(datagram):
            case Retry(_, cookie):
                self.cookies.append(cookie)
            case Reply(connection_id) as reply:
                for initiator in self.initiators:
                    if initiator.parameters.connection_id == connection_id:
                        self.agree(initiator, reply)
            case _:
                for session in self.sessions:
                    session.inbound.receive_datagram(datagram, SERVER, now=self.now)

    def agree(self, initiator: Initiator, reply: Reply) -> None:
        if initiator.state is not HandshakeState.INIT_SENT:
            return
        agreement = initiator.receive_reply(reply, now_ms=self.unix_ms())
        session = Session(
            peer="server",
            session_id=initiator.session_id,
            config=UdpConfig(),
            sending=agreement.sending,
            receiving=agreement.receiving,
            connection_id=initiator.parameters.connection_id,
            remote_connection_id=agreement.remote.connection_id,
            remote_window=agreement.remote.reliable_window,
            address=SERVER,
            random_bytes=self.random.randbytes,
            now=self.now,
        )
        session.request_confirmation()
        self.sessions.append(session)

    @rule(source=sources)
    def begin(self, source: Address) -> None:
        initiator = Initiator(
            identity=self.key,
            peer=self.server_peer,
            session_id=self.random.randbytes(16),
            parameters=Parameters(self.random.getrandbits(32), 1 << 18),
            times=HandshakeTimes(now=self.now, now_ms=self.unix_ms(), timeout=5.0, lifetime=10.0),
            retry_interval=0.25,
        )
        self.initiators.append(initiator)
        datagram = initiator.datagram_to_send(now=self.now)
        assert datagram is not None
        parsed = parse_datagram_untrusted(datagram)
        assert isinstance(parsed, Init)
        self.boxes.append(parsed.box)
        self.send(datagram, source)

    @precondition(lambda self: bool(self.boxes))
    @rule(source=sources, box=st.integers(0, 3), cookie=st.integers(0, 3))
    def repeat(self, source: Address, box: int, cookie: int) -> None:
        chosen = self.cookies[-1 - cookie % len(self.cookies)]
        self.send(encode_init(self.boxes[-1 - box % len(self.boxes)], chosen), source)

    @precondition(lambda self: bool(self.sessions))
    @rule(source=sources, which=st.integers(0, 3), states=st.integers(0, 2))
    def speak(self, source: Address, which: int, states: int) -> None:
        session = self.sessions[-1 - which % len(self.sessions)]
        if session.is_closed:
            return
        for stream in range(states):
            session.send_state(bytes(stream), stream=stream)
        session.request_confirmation()
        for datagram, _ in single_datagrams(session.datagrams_to_send(now=self.now)):
            self.send(datagram, source)

    @precondition(lambda self: bool(self.kept))
    @rule(source=sources, which=st.integers(0, 19))
    def replay(self, source: Address, which: int) -> None:
        self.send(self.kept[which % len(self.kept)], source)

    @rule(size=st.integers(0, 1152))
    def serve(self, size: int) -> None:
        session = self.server.session("attacker")
        if session is not None:
            for stream in range(4):
                session.send_state(bytes(size), stream=stream)
            session.send_reliable(bytes(size))
        self.collect()

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.3, 3.0]))
    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (timer := self.server.get_timer()) is not None and timer <= end:
            self.now = max(self.now, timer)
            self.server.handle_timer(now=self.now)
            self.collect()
        self.now = end

    @invariant()
    def no_victim_gets_more_than_was_sent_in_its_name(self) -> None:
        for victim in VICTIMS:
            assert self.bytes_out[victim] <= self.bytes_in[victim]


TestAmplification = Amplification.TestCase
TestAmplification.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def forged_init(named: Host, target: Host) -> bytes:
    """An INIT that names a peer and is not signed by it: it costs whoever takes it a signature check."""
    box = seal_signed_box(
        encode_parameters(Parameters(5, 1 << 18)),
        sender=named.key,
        recipient=target.key.public(),
        session=bytes(16),
        sequence=0,
        issued_at_ms=EPOCH_MS + 100_000,
        lifetime_ms=10_000,
        purpose="init",
        direction="i",
    ).encode()
    other = b"A" if box[-2:-1] != b"A" else b"B"
    return encode_init(box[:-2] + other + box[-1:])


def flood(network: Network, target: Host, send: Callable[[], None], *, until: Callable[[], bool]) -> None:
    """Thousands of datagrams a second until something holds, which it must within five seconds."""
    for _ in range(1000):
        for _ in range(20):
            send()
        network.run(seconds=0.005)
        if until():
            return
    raise AssertionError(target.endpoint.statistics())


def pair_under_flood() -> tuple[Network, Host, Host]:
    network = Network()
    low, high, _ = sorted_keys()
    a, b = network.host("a", low), network.host("b", high)
    introduce(a, b)
    return network, a, b


def both_established(a: Host, b: Host) -> Callable[[], bool]:
    return lambda: bool(a.of_type(SessionEstablished) and b.of_type(SessionEstablished))


def test_an_honest_peer_gets_in_through_a_flood_from_addresses_that_do_not_answer() -> None:
    network, a, b = pair_under_flood()
    forged = forged_init(a, b)
    random = Random(1)

    def spoof() -> None:
        host = ".".join(str(random.randrange(1, 255)) for _ in range(4))
        network.inject(forged, (host, random.randrange(1, 65536)), b)

    flood(network, b, spoof, until=lambda: b.endpoint.statistics().retries > 1000)
    a.endpoint.connect("b", now=network.now)
    flood(network, b, spoof, until=both_established(a, b))
    assert a.endpoint.statistics().handshakes_checked <= 2


def test_an_honest_peer_gets_in_through_a_flood_with_good_cookies_from_a_few_hosts() -> None:
    network, a, b = pair_under_flood()
    forged = parse_datagram_untrusted(forged_init(a, b))
    assert isinstance(forged, Init)
    random = Random(1)
    hosts: list[Address] = [(f"203.0.113.{n}", 1) for n in range(3)]
    cookies: dict[Address, bytes] = {}

    def send() -> None:
        address = random.choice(hosts)
        network.log.clear()
        network.inject(encode_init(forged.box, cookies.get(address, b"")), address, b)
        for _, target, datagram in network.log:
            if datagram[0] == RETRY:
                cookies[target] = datagram[-COOKIE_BYTES:]

    flood(network, b, send, until=lambda: len(cookies) == 3 and network.now > 101)
    a.endpoint.connect("b", now=network.now)
    flood(network, b, send, until=both_established(a, b))


def test_replies_that_anybody_forges_cost_no_more_checks_than_may_be_made() -> None:
    """Who reads on the way knows the connection id of the true one, and sends faster than it comes."""
    network, a, b = pair_under_flood()
    network.drop = lambda datagram, _source, target: datagram[0] == REPLY and target == a.address
    a.endpoint.connect("b", now=network.now)
    network.settle(a)
    replies: list[bytes] = []

    def has_replied() -> bool:
        replies[:] = [datagram for _, _, datagram in network.log if datagram[0] == REPLY]
        return bool(replies)

    network.run(until=has_replied)
    true = parse_datagram_untrusted(replies[0])
    assert isinstance(true, Reply)
    other = b"A" if true.box[-2:-1] != b"A" else b"B"
    forged = encode_reply(true.connection_id, true.box[:-2] + other + true.box[-1:])
    for _ in range(1000):
        network.inject(forged, ("203.0.113.1", 1), a)
    statistics = a.endpoint.statistics()
    assert statistics.handshakes_checked == UdpConfig().handshake_burst
    assert statistics.drops[DropReason.HANDSHAKE_RATE] == 1000 - UdpConfig().handshake_burst
    network.drop = lambda _datagram, _source, _target: False
    network.run(until=both_established(a, b))


def test_a_flood_leaves_nothing_behind() -> None:
    network, a, b = pair_under_flood()
    forged = forged_init(a, b)
    kinds = (Responder, Session, TokenBucket, Aead)
    gc.collect()
    before = Counter(type(item) for item in gc.get_objects() if isinstance(item, kinds))
    for number in range(3000):
        network.log.clear()
        network.inject(forged, (f"10.{number % 7}.{number % 11}.{number % 13}", number % 65535 + 1), b)
        network.inject(bytes([DATA]) + Random(number).randbytes(50), ("10.0.0.1", 1), b)
    gc.collect()
    after = Counter(type(item) for item in gc.get_objects() if isinstance(item, kinds))
    assert after == before
    statistics = b.endpoint.statistics()
    assert (statistics.handshakes_pending, statistics.sessions) == (0, 0)


def test_strangers_that_ask_while_the_kernel_has_no_room_fill_no_memory() -> None:
    """What nobody takes is not added to; once it was taken, strangers are answered again."""
    network, a, b = pair_under_flood()
    init = forged_init(a, b)
    for _ in range(2):
        for number in range(2000):
            b.endpoint.receive_datagram(init, ("203.0.113.1", 1 + number), now=network.now)
        answers = single_datagrams(b.endpoint.datagrams_to_send(now=network.now))
        assert 500 < len(answers) < 1100


def test_a_peer_that_only_ever_begins_costs_a_bounded_number_of_sessions() -> None:
    network, a, b = pair_under_flood()
    gc.collect()
    before = sum(isinstance(item, Session) for item in gc.get_objects())
    for number in range(100):
        box = seal_signed_box(
            encode_parameters(Parameters(5, 1 << 18)),
            sender=a.key,
            recipient=b.key.public(),
            session=number.to_bytes(16, "big"),
            sequence=0,
            issued_at_ms=EPOCH_MS + 100_000,
            lifetime_ms=10_000,
            purpose="init",
            direction="i",
        )
        network.inject(encode_init(box.encode()), ("203.0.113.1", 1), b)
    pending = b.endpoint.statistics().handshakes_pending
    assert pending == UdpConfig().max_pending_per_peer
    assert sum(isinstance(item, Session) for item in gc.get_objects()) - before == pending


def test_nothing_a_stranger_sends_raises() -> None:
    network, _, b = pair_under_flood()
    random = Random(3)
    try:
        for first in range(256):
            for size in (1, 12, 39, 40, 400, 1200, 1201):
                network.inject(bytes([first]) + random.randbytes(size - 1), ("10.0.0.1", 1), b)
    except BridgeError as error:  # pragma: no cover
        raise AssertionError(first) from error
