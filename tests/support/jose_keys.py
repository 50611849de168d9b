"""One key of each curve, made once for a test run, and boxes and tokens whose header a test may bend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge.jose import Jwk
from bridge.jose.agreement import concat_kdf, shared_secret
from bridge.jose.content import CONTENT_ENCRYPTIONS
from bridge.jose.encoding import base64url_decode_untrusted, base64url_encode, json_encode
from bridge.jose.signature import sign_raw

CURVES = ("P-256", "P-384", "P-521", "X25519", "X448", "Ed25519", "Ed448")
KEYS = {curve: Jwk.generate(curve) for curve in CURVES}

Header = dict[str, Any]


def genuine_box(
    recipient: Jwk,
    change: Callable[[Header], object] = lambda header: None,
    *,
    enc: str = "A128GCM",
    raw_header: Callable[[bytes], bytes] = lambda raw: raw,
    static: Jwk | None = None,
) -> dict[str, str]:
    """Seal ``b"genuine"`` under a header that was changed *before* sealing, so that every tag holds.

    With ``static`` the sender's static key takes part in the agreement (ECDH-1PU).
    """
    sender = Jwk.generate(recipient.curve or "")
    header: Header = {"alg": "ECDH-ES", "enc": enc, "epk": sender.public().to_dict()}
    change(header)
    content = CONTENT_ENCRYPTIONS[enc]
    secret = shared_secret(sender, recipient) + (b"" if static is None else shared_secret(static, recipient))
    key = concat_kdf(secret, algorithm=enc, apu=b"", apv=b"", size=content.key_size)
    protected = base64url_encode(raw_header(json_encode(header)))
    iv = bytes(content.iv_size)
    ciphertext, tag = content.seal(key, iv, b"genuine", protected.encode())
    return {
        "protected": protected,
        "encrypted_key": "",
        "iv": base64url_encode(iv),
        "ciphertext": base64url_encode(ciphertext),
        "tag": base64url_encode(tag),
    }


def genuine_token(key: Jwk, algorithm: str, header: bytes, payload: bytes = b"genuine") -> str:
    """Sign under any header text, so that the signature holds."""
    covered = f"{base64url_encode(header)}.{base64url_encode(payload)}"
    return f"{covered}.{base64url_encode(sign_raw(covered.encode(), key, algorithm))}"


def flip_bit(text: str, bit: int) -> str:
    """Flip one bit of what base64url text stands for."""
    raw = bytearray(base64url_decode_untrusted(text))
    raw[bit // 8 % len(raw)] ^= 1 << bit % 8
    return base64url_encode(bytes(raw))
