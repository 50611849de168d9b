"""Records and inbox messages as the homeserver tells them."""

from __future__ import annotations

from typing import Any

from bridge.etf import Atom

SESSION = b"s" * 16
OTHER = b"o" * 16
TRACE = b"t" * 16
UNDEFINED = Atom("undefined")


def term(**members: Any) -> dict[Atom, Any]:
    return {Atom(name): value for name, value in members.items()}


ENTITY = term(
    entity=b"ball",
    owner=b"Player1",
    master=b"Player2",
    rule=Atom("ask"),
    session=SESSION,
    server=b"sim1",
    epoch=(1 << 48) + 7,
    awaiting=UNDEFINED,
    home=b"local",
    version=3,
)
SERVER = term(server=b"sim1", session=SESSION, key=b"{}", thumbprint=b"x" * 43, address=(b"127.0.0.1", 4000))
GRANT = {
    Atom("type"): Atom("grant"),
    Atom("from"): b"sim1",
    **term(entity=b"ball", epoch=8, previous=7, owner=b"Player2", box=b"a.b", trace=TRACE, hop=1),
}
FAILOVER = {
    Atom("type"): Atom("failover"),
    Atom("from"): b"sim1",
    **term(entity=b"ball", epoch=9, previous=7, owner=b"Player2", awaiting=UNDEFINED, trace=TRACE, hop=1),
}
RECALL = {
    Atom("type"): Atom("recall"),
    **term(entity=b"ball", epoch=7, granted=8, to=b"sim2", owner=b"P", trace=TRACE, hop=1, unread=UNDEFINED),
}

ASK = {
    Atom("type"): Atom("ask"),
    **term(entity=b"gun", player=b"P", server=b"sim2", owner=b"O", master=b"M", authority=True),
    **term(expires=1_800_000_000_000, trace=TRACE, hop=1),
}
ENDED = {
    Atom("type"): Atom("outcome"),
    **term(entity=b"ball", player=b"P", outcome=Atom("conflict"), record=ENTITY, asked=TRACE),
    **term(trace=TRACE, hop=3),
}

CLOSED = {
    Atom("type"): Atom("closed"),
    **term(entity=b"ball", epoch=9, instance=b"ruby", to=b"sim2", transfer=8, trace=TRACE, hop=3),
}
RETURNED = {
    Atom("type"): Atom("returned"),
    **term(entity=b"ball", epoch=9, reason=Atom("no_server"), trace=TRACE, hop=3),
}
