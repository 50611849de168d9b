"""Mutate certificates, tokens, tickets, proofs and grants; any exception but ``SignatureError`` is a finding.

Half of the mutated ones are signed again, by the genuine key: so that what is behind the signature is
reached too. What holds although its claims were altered, and was not signed again, is a finding. The
signer's policy and its socket's messages are fed the same.

Run it as ``python -m tests.fuzz.fuzz_credentials --seconds 60 --seed 1``, or as a script with the
repository on the import path. A finding prints its input and ends with status 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from bridge.errors import DecodeError, SignatureError
from bridge.homeserver.signer.messages import (
    Sign,
    decode_answer_untrusted,
    decode_question_untrusted,
    encode_frame,
)
from bridge.homeserver.signer.policy import SignerLimits, SigningPolicy
from bridge.jose import Jwk
from bridge.jose.credentials import (
    TicketDesk,
    read_access_untrusted,
    read_certificate_untrusted,
    read_enrolment_untrusted,
    read_grant_untrusted,
    read_peer_untrusted,
    read_proof_untrusted,
    read_session_ticket_untrusted,
)
from bridge.jose.encoding import (
    base64url_decode_untrusted,
    base64url_encode,
    json_encode,
    json_object_untrusted,
)
from bridge.jose.signature import sign_raw
from tests.fuzz.fuzz_jose import mutate_text
from tests.support.credentials import (
    INSTANCE,
    ISSUER,
    KEYS,
    NOW,
    SESSION,
    access_token,
    certificate,
    enrolment,
    grant,
    issued,
    peer_token,
    proof,
    session_ticket,
    ticket,
)

ALICE = Jwk.generate()
CERTIFICATE = issued(certificate(ALICE))
POLICY = SigningPolicy(
    instance=INSTANCE, current=ISSUER, limits=SignerLimits(rate=1e12, certificate_rate=1e12)
)


@dataclass(frozen=True, slots=True)
class Target:
    """One kind: a genuine one, how it is read, and the key that signs it."""

    name: str
    text: str
    read: Callable[[str], object]
    key: Jwk = ISSUER


def _desk(text: str) -> object:
    desk = TicketDesk(server="B", session=SESSION, instance=INSTANCE, keys=KEYS, rooms={"tavern"})
    return desk.present_untrusted(text, now=NOW)


def _sign(text: str) -> object:
    """What the signer signs, a reader takes."""
    segments = text.split(".")
    try:
        header, claims = (json_object_untrusted(base64url_decode_untrusted(part)) for part in segments[:2])
    except ValueError as error:
        raise SignatureError("no claims") from error
    typ = header.get("typ")
    token = POLICY.sign(typ if isinstance(typ, str) else "", claims, now=NOW, monotonic=0.0)
    return _READERS[typ](token)


_READERS: dict[object, Callable[[str], object]] = {
    "kb-certificate+jwt": lambda t: read_certificate_untrusted(t, keys=KEYS, instance=INSTANCE, now=NOW),
    "kb-access+jwt": lambda t: read_access_untrusted(t, keys=KEYS, instance=INSTANCE, now=NOW),
    "kb-session+jwt": lambda t: read_session_ticket_untrusted(t, keys=KEYS, instance=INSTANCE, now=NOW),
    "kb-grant+jwt": lambda t: read_grant_untrusted(t, keys=KEYS, instance=INSTANCE),
}
_ALICE_PEER = {"peer": "B", "thumbprint": ALICE.thumbprint()}

TARGETS: tuple[Target, ...] = (
    Target("certificate", CERTIFICATE, _READERS["kb-certificate+jwt"]),
    Target("access", issued(access_token(ALICE)), _READERS["kb-access+jwt"]),
    Target("session", issued(session_ticket(ALICE)), _READERS["kb-session+jwt"]),
    Target("grant", issued(grant(ALICE)), _READERS["kb-grant+jwt"]),
    Target(
        "peer",
        issued(peer_token(ALICE)),
        lambda t: read_peer_untrusted(t, keys=KEYS, instance=INSTANCE, now=NOW, **_ALICE_PEER),
    ),
    Target("ticket", issued(ticket(ALICE)), _desk),
    Target(
        "proof",
        proof(CERTIFICATE).signed(ALICE),
        lambda t: read_proof_untrusted(t, keys=KEYS, instance=INSTANCE, now=NOW),
        ALICE,
    ),
    Target(
        "enrolment",
        enrolment(ALICE).signed(ALICE),
        lambda t: read_enrolment_untrusted(t, instance=INSTANCE, now=NOW),
        ALICE,
    ),
    Target("signer, access", issued(access_token(ALICE)), _sign),
    Target("signer, certificate", CERTIFICATE, _sign),
)


def _signed_again(text: str, key: Jwk) -> str:
    covered = text.rpartition(".")[0]
    try:
        return f"{covered}.{base64url_encode(sign_raw(covered.encode('ascii'), key, 'ES256'))}"
    except UnicodeEncodeError:
        return text


def _mutate_claims(text: str, source: random.Random) -> str:
    """Change the claims themselves, so that most of what is signed again gets as far as their checks."""
    header, payload, signature = text.split(".")
    claims = mutate_text(base64url_decode_untrusted(payload).decode(), source)
    return f"{header}.{base64url_encode(claims.encode('utf-8', 'surrogatepass'))}.{signature}"


def fuzz(source: random.Random, rounds: int) -> None:
    """Try every target with ``rounds`` mutations; raises what no caller was promised."""
    for _ in range(rounds):
        for target in TARGETS:
            mutate = _mutate_claims if source.random() < 0.5 else mutate_text
            mutated = mutate(target.text, source)
            again = source.random() < 0.5
            try:
                target.read(_signed_again(mutated, target.key) if again else mutated)
                if not again and mutated.rpartition(".")[0] != target.text.rpartition(".")[0]:
                    _check_same(target, mutated)
            except SignatureError:
                continue
            except Exception as error:
                error.add_note(f"{target.name}: {mutated!r}, signed again: {again}")
                error.add_note(f"Alice {ALICE.to_json()} issuer {ISSUER.to_json()}")
                raise
        _fuzz_messages(source)


def _check_same(target: Target, mutated: str) -> None:
    """Only the signer looks past a signature: it makes its own."""
    if not target.name.startswith("signer"):
        raise AssertionError(f"an altered {target.name} held: {mutated!r}")


def _fuzz_messages(source: random.Random) -> None:
    frame = bytearray(encode_frame(Sign(typ="kb-access+jwt", claims=json_encode({"a": 1})))[4:])
    for _ in range(source.randint(1, 4)):
        frame[source.randrange(len(frame))] = source.randrange(256)
    for decode in (decode_question_untrusted, decode_answer_untrusted):
        try:
            decode(bytes(frame))
        except DecodeError:
            continue


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    source, end, rounds = random.Random(arguments.seed), time.monotonic() + arguments.seconds, 0
    while time.monotonic() < end:
        fuzz(source, 100)
        rounds += 100
    sys.stdout.write(f"{rounds * (len(TARGETS) + 1)} inputs, no finding\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
