from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.udp.draft import Draft
from bridge.udp.frames import Message, Reliable, parse_frames_untrusted
from bridge.udp.messages import OutgoingMessages


def messages(*, credit: int = 1 << 18) -> OutgoingMessages:
    return OutgoingMessages(credit=credit, buffer_limit=1 << 20)


def kinds(draft: Draft) -> list[type]:
    return [type(frame) for frame in parse_frames_untrusted(b"".join(draft.pieces))]


def test_the_kinds_take_turns_at_the_room_of_a_datagram() -> None:
    out = messages()
    out.write_ordered(bytes(5000))
    out.write_unordered(bytes(5000))
    first, second = Draft(), Draft()
    assert out.put(first)
    assert out.put(second)
    assert (kinds(first), kinds(second)) == ([Reliable], [Message])


def test_small_messages_of_both_kinds_share_a_datagram() -> None:
    out, draft = messages(), Draft()
    out.write_ordered(b"first")
    out.write_unordered(b"a")
    out.write_unordered(b"b")
    assert out.put(draft)
    assert sorted(kinds(draft), key=str) == [Message, Message, Reliable]
    assert not out.has_pending
    assert not out.put(draft)


def test_no_part_is_cut_for_the_last_bytes_of_a_datagram() -> None:
    out, draft = messages(), Draft()
    draft.add(bytes(draft.room - 60))
    out.write_ordered(bytes(500))
    out.write_unordered(bytes(500))
    assert not out.put(draft)
    assert out.has_pending


def test_without_credit_it_is_the_peers_turn() -> None:
    out = messages(credit=0)
    assert not out.are_waited_for
    out.write_unordered(b"message")
    assert (out.has_pending, out.are_waited_for) == (False, True)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3000)), min_size=1, max_size=8), st.integers(0, 1 << 32)
)
def test_what_is_lost_goes_again_until_all_arrived(written: list[tuple[bool, int]], seed: int) -> None:
    random = Random(seed)
    out = messages()
    for is_ordered, size in written:
        (out.write_ordered if is_ordered else out.write_unordered)(bytes(size))
    arrived = 0
    while out.has_pending:
        draft = Draft()
        assert out.put(draft)
        carried = draft.carried
        assert carried is not None
        if random.random() < 0.25:
            out.lose(carried)
            continue
        for fragment in carried.fragments:
            out.unordered.acknowledge(*fragment)
        if carried.run is not None and carried.run[0] <= arrived:
            arrived = max(arrived, carried.run[1])
            out.reliable.update(arrived, 1 << 18)
        elif carried.run is not None:
            out.lose(carried._replace(fragments=()))  # behind a gap
    assert not out.are_held()
    assert not out.are_waited_for
