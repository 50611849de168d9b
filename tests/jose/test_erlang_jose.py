"""Both ways with real erlang-jose, where it is installed (Debian: erlang-jose and erlang-jiffy) (R0-23)."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bridge.jose import Jwk, box_compact, box_decrypt, box_encrypt, sign, verify
from bridge.jose.encoding import base64url_decode_untrusted, base64url_encode

BOX_CURVES = ("P-256", "P-384", "P-521", "X25519", "X448")
SIGNING_CURVES = ("P-256", "P-384", "P-521", "Ed25519")
PLAINTEXTS = (b"", b"x", bytes(range(256)) * 5)
SCRIPT = Path(__file__).with_name("erlang_jose.escript")

pytestmark = pytest.mark.erlang


class ErlangJose:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def ask(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Send all requests in one run: starting the VM costs more than all of them."""
        questions, answers = self._directory / "requests.json", self._directory / "answers.json"
        questions.write_text(json.dumps(requests))
        subprocess.run(["escript", SCRIPT, questions, answers], check=True, capture_output=True, timeout=60)
        replies: list[dict[str, Any]] = json.loads(answers.read_bytes())
        assert [reply for reply in replies if "error" in reply] == []
        return replies


@pytest.fixture(scope="module")
def erlang_jose(tmp_path_factory: pytest.TempPathFactory) -> ErlangJose:
    if shutil.which("escript") is None:
        pytest.skip("NOT TESTED against real erlang-jose: no Erlang here")
    probe = '[io:format("~p ", [code:which(M)]) || M <- [jose, jiffy]], halt().'
    found = subprocess.run(
        ["erl", "-noshell", "-eval", probe], check=True, capture_output=True, text=True, timeout=60
    )
    if "non_existing" in found.stdout:
        pytest.skip(
            "NOT TESTED against real erlang-jose: install Debian's erlang-jose and erlang-jiffy, or name the "
            "directory that holds both in ERL_LIBS"
        )
    return ErlangJose(tmp_path_factory.mktemp("erlang-jose"))


def test_boxes_of_real_erlang_jose_open(erlang_jose: ErlangJose) -> None:
    """R0-23."""
    cases = []
    for curve in BOX_CURVES:
        for plaintext in PLAINTEXTS:
            recipient, sender = Jwk.generate(curve), Jwk.generate(curve)
            request = {
                "op": "box_encrypt",
                "plaintext": base64url_encode(plaintext),
                "recipient": recipient.public().to_dict(),
            }
            cases.append((recipient, plaintext, request))
            cases.append((recipient, plaintext, {**request, "sender": sender.to_dict()}))
    for (recipient, plaintext, _), reply in zip(
        cases, erlang_jose.ask([request for *_, request in cases]), strict=True
    ):
        assert box_decrypt(reply["box"], recipient) == plaintext
        assert box_decrypt(reply["compact"], recipient) == plaintext


def test_real_erlang_jose_opens_our_boxes(erlang_jose: ErlangJose) -> None:
    """R0-23."""
    cases = []
    for curve in BOX_CURVES:
        for plaintext in PLAINTEXTS:
            for sender in (None, Jwk.generate(curve)):
                recipient = Jwk.generate(curve)
                box = box_encrypt(plaintext, recipient.public(), sender)
                for form in (box, box_compact(box)):
                    request = {"op": "box_decrypt", "recipient": recipient.to_dict(), "box": form}
                    cases.append((plaintext, request))
    for (plaintext, _), reply in zip(cases, erlang_jose.ask([request for _, request in cases]), strict=True):
        assert base64url_decode_untrusted(reply["plaintext"]) == plaintext


def test_signatures_hold_both_ways(erlang_jose: ErlangJose) -> None:
    keys = [Jwk.generate(curve) for curve in SIGNING_CURVES]
    replies = erlang_jose.ask(
        [
            {"op": "sign", "key": key.to_dict(), "payload": base64url_encode(payload)}
            for key in keys
            for payload in PLAINTEXTS
        ]
    )
    pairs = [(key, payload) for key in keys for payload in PLAINTEXTS]
    for (key, payload), reply in zip(pairs, replies, strict=True):
        assert verify(reply["token"], key.public()) == payload
    replies = erlang_jose.ask(
        [
            {"op": "verify", "key": key.public().to_dict(), "token": sign(payload, key)}
            for key, payload in pairs
        ]
    )
    for (_, payload), reply in zip(pairs, replies, strict=True):
        assert reply["holds"]
        assert base64url_decode_untrusted(reply["payload"]) == payload


def test_thumbprints_are_the_same(erlang_jose: ErlangJose) -> None:
    keys = [Jwk.generate(curve) for curve in (*BOX_CURVES, "Ed25519", "Ed448")]
    replies = erlang_jose.ask([{"op": "thumbprint", "key": key.to_dict()} for key in keys])
    assert [reply["thumbprint"] for reply in replies] == [key.thumbprint() for key in keys]
