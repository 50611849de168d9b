from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import pytest

from bridge.errors import BridgeError
from bridge.etf import Atom
from bridge.jose import Jwk
from bridge.khepri import Khepri, Snapshot, Updated
from bridge.registry import Credentials, KeyState
from bridge.registry import trust as room
from bridge.registry.trust import FixedTrust, Trust, Trusted
from tests.support.cluster import erlang
from tests.support.credentials import KEYS


def key_record(key: Jwk, state: str) -> dict[Any, Any]:
    return {
        Atom("kid"): key.thumbprint().encode(),
        Atom("key"): key.public().to_json().encode(),
        Atom("state"): Atom(state),
        Atom("since"): 1,
        Atom("until"): Atom("undefined"),
    }


@dataclass
class Told:
    """A store whose feed tells what it was given, then nothing more."""

    changes: list[Any]
    broken: int = 0

    def watch(self, *_: Any) -> Told:
        return self

    async def __aenter__(self) -> Told:
        if self.broken:
            self.broken -= 1
            raise BridgeError("the feed is broken")
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __aiter__(self) -> Any:
        for change in self.changes:
            yield change
        await asyncio.Event().wait()


def path(kind: str, name: str) -> tuple[Any, ...]:
    return Atom("bridge"), Atom(kind), name.encode()


@erlang
async def test_it_learns_of_keys_and_revocations_as_they_come(store: Khepri) -> None:
    """R0-24."""
    credentials, key = Credentials(store), Jwk.generate()
    await credentials.publish_key(key, KeyState.NEXT)
    async with Trust(store) as trust:
        trusted: Trusted = trust
        assert trusted.keys(time.time())[key.thumbprint()] == key.public()
        other = Jwk.generate().thumbprint()
        assert not trusted.is_revoked(other)
        await credentials.revoke(other, reason="test")
        await credentials.revoke(key.thumbprint(), reason="test")
        while not (trust.is_revoked(other) and trust.is_revoked(key.thumbprint())):
            await asyncio.sleep(0.01)
        while key.thumbprint() in trust.keys(time.time()):
            await asyncio.sleep(0.01)
    async with Trust(store) as later:
        assert later.is_revoked(other)
        assert key.thumbprint() not in later.keys(time.time())


async def test_a_member_that_is_behind_takes_nothing_back() -> None:
    key, name = Jwk.generate(), "AAECAwQFBgcICQoLDA0ODw"
    of_key, of_revocation = path("keys", key.thumbprint()), path("revoked", name)
    revoked = key_record(key, "revoked")
    told = Told(
        [
            Snapshot({of_key: key_record(key, "current"), of_revocation: {}}, "a@h"),
            Updated(of_key, revoked),
            Snapshot({of_key: key_record(key, "current")}, "b@h", gap=True),
        ]
    )
    async with Trust(told) as trust:  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert trust.is_revoked(name)
        assert not trust.keys(0.0)
        assert [published.state for published in trust.published()] == [KeyState.REVOKED]


async def test_a_key_that_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    key = Jwk.generate()
    nodes = {path("keys", "x"): {}, path("keys", key.thumbprint()): key_record(key, "current")}
    async with Trust(Told([Snapshot(nodes, "a@h")])) as trust:  # type: ignore[arg-type]
        assert list(trust.keys(0.0)) == [key.thumbprint()]
    assert "cannot be used" in caplog.text


async def test_a_feed_that_breaks_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_RETRY_SECONDS", 0.0)
    async with Trust(Told([Snapshot({}, "a@h")], broken=2)) as trust:  # type: ignore[arg-type]
        assert trust.keys(0.0) == {}


async def test_a_store_that_tells_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_START_SECONDS", 0.01)
    with pytest.raises(BridgeError, match="does not tell"):
        async with Trust(Told([])):  # type: ignore[arg-type]
            pass


def test_a_copy_is_what_it_was_made_of() -> None:
    fixed = FixedTrust(KEYS, frozenset({"a"}))
    assert fixed.keys(0.0) is KEYS
    assert (fixed.is_revoked("a"), fixed.is_revoked("b")) == (True, False)
