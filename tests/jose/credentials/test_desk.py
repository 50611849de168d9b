from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import SignatureError
from bridge.jose import Jwk
from bridge.jose.credentials import Admitted, Awaited, Ticket, TicketDesk
from bridge.jose.encoding import base64url_encode
from tests.support.credentials import ID, INSTANCE, KEYS, NOW, SESSION, access_token, issued, ticket

ALICE, BOB = Jwk.generate(), Jwk.generate()
A, B = ALICE.thumbprint(), BOB.thumbprint()


def desk(**changes: Any) -> TicketDesk:
    arguments = {"server": "B", "session": SESSION, "instance": INSTANCE, "keys": KEYS, "rooms": {"tavern"}}
    return TicketDesk(**{**arguments, **changes})


def nonce(number: int) -> str:
    return base64url_encode(number.to_bytes(16))


def test_ticket_first_then_the_connection() -> None:
    """R4-6: whatever order things arrive in; R4-4: no back-end call."""
    made, place = ticket(ALICE), desk()
    assert place.present_untrusted(issued(made), now=NOW) == Awaited(ticket=made)
    assert place.connect(A, 1, now=NOW) == Admitted(ticket=made, connection=1)


def test_connection_first_then_the_ticket() -> None:
    """R4-6."""
    made, place = ticket(ALICE), desk()
    assert place.connect(A, 1, now=NOW) is None
    assert not place.is_present(A)
    assert place.present_untrusted(issued(made), by=A, now=NOW) == Admitted(ticket=made, connection=1)
    assert place.is_present(A)


@pytest.mark.parametrize("order", list(itertools.permutations(["ticket", "ticket again", "connect", "junk"])))
def test_in_any_order_a_player_is_admitted_exactly_once(order: tuple[str, ...]) -> None:
    """R4-6, R4-8."""
    place, token, admitted = desk(), issued(ticket(ALICE)), 0
    for step in order:
        try:
            match step:
                case "connect":
                    result: object = place.connect(A, 1, now=NOW)
                case "junk":
                    result = place.present_untrusted(token[:-4], now=NOW)
                case _:
                    result = place.present_untrusted(token, now=NOW)
        except SignatureError:
            continue
        admitted += isinstance(result, Admitted)
    assert admitted == 1


def test_the_data_is_there_with_the_admission() -> None:
    """R4-5: before play starts."""
    place = desk()
    place.connect(A, 1, now=NOW)
    admitted = place.present_untrusted(issued(ticket(ALICE)), now=NOW)
    assert admitted.ticket.data["gold"] == 7


def test_a_second_use_is_refused() -> None:
    """R4-8."""
    place, token = desk(), issued(ticket(ALICE))
    place.present_untrusted(token, now=NOW)
    place.connect(A, 1, now=NOW)
    for by in (None, A):
        with pytest.raises(SignatureError, match="used before"):
            place.present_untrusted(token, by=by, now=NOW)
    place.disconnect(A, 1)
    with pytest.raises(SignatureError, match="used before"):
        place.present_untrusted(token, now=NOW + 59)


def test_a_wrong_room_server_or_run_is_refused() -> None:
    """R4-8."""
    for change in ({"room": "dungeon"}, {"server": "C"}, {"session": ID}):
        with pytest.raises(SignatureError, match=r"another|not open"):
            desk().present_untrusted(issued(ticket(ALICE, **change)), now=NOW)


def test_an_expired_ticket_is_refused_and_one_that_expires_while_it_waits_admits_nobody() -> None:
    """R4-8."""
    place, token = desk(), issued(ticket(ALICE))
    with pytest.raises(SignatureError, match="expired"):
        place.present_untrusted(token, now=NOW + 60)
    place.present_untrusted(token, now=NOW + 59)
    assert place.connect(A, 1, now=NOW + 60) is None


def test_another_players_ticket_is_refused() -> None:
    place = desk()
    place.connect(B, 2, now=NOW)
    with pytest.raises(SignatureError, match="bearer"):
        place.present_untrusted(issued(ticket(ALICE)), by=B, now=NOW)
    # Carried by somebody else, it waits for its own player and admits no other.
    place.present_untrusted(issued(ticket(ALICE)), now=NOW)
    assert not place.is_present(B)


def test_another_run_of_the_server_needs_no_memory_of_what_was_used() -> None:
    """R4-8, after a restart."""
    token = issued(ticket(ALICE))
    first = desk()
    first.present_untrusted(token, now=NOW)
    assert first.connect(A, 1, now=NOW)
    with pytest.raises(SignatureError, match="another run"):
        desk(session=ID).present_untrusted(token, now=NOW)


def test_a_clock_that_is_set_back_lets_no_ticket_in_twice() -> None:
    place, token = desk(), issued(ticket(ALICE))
    place.present_untrusted(token, now=NOW)
    place.connect(A, 1, now=NOW)
    place.expire(NOW + 1e6)
    with pytest.raises(SignatureError, match="used before"):
        place.present_untrusted(token, now=NOW)
    # And one that leapt ahead for a moment keeps no later ticket out.
    later = ticket(ALICE, nonce=nonce(7), issued_at=NOW + 1, expires_at=NOW + 61)
    assert isinstance(place.present_untrusted(issued(later), now=NOW + 1), Admitted)


def test_a_full_desk_forgets_those_that_end_first_and_takes_none_of_them_again() -> None:
    place = desk(capacity=4)
    place.connect(A, 1, now=NOW)
    tokens = [issued(ticket(ALICE, nonce=nonce(n), expires_at=NOW + 20 + n)) for n in range(8)]
    for token in tokens:
        assert isinstance(place.present_untrusted(token, now=NOW), Admitted)
    for token in tokens:
        with pytest.raises(SignatureError, match="used before"):
            place.present_untrusted(token, now=NOW)


def test_memory_is_bounded_on_each_side() -> None:
    place = desk(capacity=2)
    keys = [Jwk.generate() for _ in range(3)]
    for key in keys[:2]:
        place.present_untrusted(issued(ticket(key, nonce=nonce(1))), now=NOW)
    with pytest.raises(SignatureError, match="too many players"):
        place.present_untrusted(issued(ticket(keys[2])), now=NOW)
    for number in range(2):
        place.connect(nonce(number), number, now=NOW)
    with pytest.raises(SignatureError, match="too many connections"):
        place.connect(nonce(2), 2, now=NOW)
    # Those that are over make room, and are told all the same.
    place.connect(nonce(2), 2, now=NOW + 10)
    assert place.expire(NOW + 10) == [0, 1]
    later = ticket(keys[2], issued_at=NOW + 30, expires_at=NOW + 90)
    place.present_untrusted(issued(later), now=NOW + 60)


def test_a_connection_waits_for_its_ticket_only_so_long() -> None:
    place = desk(patience=5.0)
    place.connect(A, 1, now=NOW)
    assert place.expire(NOW + 4.9) == []
    assert place.expire(NOW + 5) == [1]
    assert place.expire(NOW + 6) == []


def test_a_player_who_is_here_may_come_over_a_new_connection() -> None:
    place = desk()
    place.present_untrusted(issued(ticket(ALICE)), now=NOW)
    place.connect(A, 1, now=NOW)
    assert place.connect(A, 2, now=NOW + 3) is None
    place.disconnect(A, 1)
    assert place.is_present(A)
    place.disconnect(A, 2)
    assert not place.is_present(A)
    # Gone is gone: to come back takes another ticket.
    assert place.connect(A, 3, now=NOW + 4) is None
    assert not place.is_present(A)


def test_a_room_that_closes_while_a_ticket_waits_admits_nobody() -> None:
    rooms = {"tavern"}
    place = desk(rooms=rooms)
    place.present_untrusted(issued(ticket(ALICE)), now=NOW)
    rooms.clear()
    assert place.connect(A, 1, now=NOW) is None


def test_a_revoked_key_is_out_whether_present_waiting_or_to_come() -> None:
    revoked: set[str] = set()
    place = desk(revoked=revoked)
    place.present_untrusted(issued(ticket(ALICE)), now=NOW)
    place.connect(A, 1, now=NOW)
    place.connect(B, 2, now=NOW)
    assert place.expire(NOW + 1) == []
    revoked |= {A, B}
    assert sorted(place.expire(NOW + 1)) == [1, 2]
    assert not place.is_present(A)
    with pytest.raises(SignatureError, match="revoked"):
        place.connect(A, 3, now=NOW + 1)
    with pytest.raises(SignatureError, match="revoked"):
        place.present_untrusted(issued(ticket(BOB)), now=NOW + 1)


def test_keys_that_are_published_later_are_taken_then() -> None:
    place = desk(keys={})
    with pytest.raises(SignatureError, match="issuers"):
        place.present_untrusted(issued(ticket(ALICE)), now=NOW)
    place.keys = KEYS
    place.present_untrusted(issued(ticket(ALICE)), now=NOW)


def test_what_is_no_ticket_is_refused() -> None:
    for token in ("", issued(access_token(ALICE)), "." * 20_000):
        with pytest.raises(SignatureError):
            desk().present_untrusted(token, now=NOW)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["present", "connect", "disconnect", "expire"]), st.integers(0, 2), st.integers(0, 40)
    ),
    max_size=40,
)
PLAYERS = [Jwk.generate() for _ in range(3)]
TICKETS: list[Ticket] = [
    ticket(player, nonce=nonce(10 * number + count), expires_at=NOW + 20 + 20 * count)
    for number, player in enumerate(PLAYERS)
    for count in range(2)
]
TOKENS = [issued(made) for made in TICKETS]


@given(STEPS)
def test_whatever_happens_no_ticket_is_used_twice_and_nobody_plays_without(
    steps: list[tuple[str, int, int]],
) -> None:
    """R4-8: with clocks that go either way, and a desk that holds three."""
    place, used, admitted = desk(capacity=3), set[str](), set[str]()
    for step, number, ahead in steps:
        player, now = PLAYERS[number].thumbprint(), NOW + ahead
        result: object = None
        try:
            match step:
                case "present":
                    result = place.present_untrusted(TOKENS[2 * number + ahead % 2], now=now)
                case "connect":
                    result = place.connect(player, number, now=now)
                case "disconnect":
                    place.disconnect(player, number)
                case _:
                    place.expire(now)
        except SignatureError:
            continue
        if isinstance(result, Admitted):
            assert result.ticket.nonce not in used
            assert result.ticket.thumbprint == player
            used.add(result.ticket.nonce)
            admitted.add(player)
        assert place.is_present(player) <= (player in admitted)
