from __future__ import annotations

import pytest

from bridge.errors import SignatureError
from bridge.jose import Jwk
from bridge.jose.credentials import check_standing, read_session_ticket_untrusted
from tests.support.credentials import ID, INSTANCE, KEYS, NOW, grant, issued, session_ticket

HOLDER = Jwk.generate()


def test_a_grant_counts_while_its_holders_session_ticket_is_in_force() -> None:
    """Fencing: one signature a session and a few seconds, whatever it holds."""
    ticket = read_session_ticket_untrusted(
        issued(session_ticket(HOLDER)), keys=KEYS, instance=INSTANCE, now=NOW
    )
    check_standing(grant(HOLDER), ticket, now=NOW + 4.999)
    with pytest.raises(SignatureError, match="expired"):
        check_standing(grant(HOLDER), ticket, now=NOW + 5)


def test_a_grant_counts_with_no_other_session_key_or_instance() -> None:
    ticket = session_ticket(HOLDER)
    others = (grant(HOLDER, session=ID), grant(Jwk.generate()), grant(HOLDER, instance="ruby"))
    for other in others:
        with pytest.raises(SignatureError, match="another"):
            check_standing(other, ticket, now=NOW)
