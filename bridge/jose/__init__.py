"""Keys, boxes, signatures and signed boxes (JOSE), in the one strict form that this package takes."""

from bridge.jose.agreement import shared_secret
from bridge.jose.box import MAX_BOX_BYTES, box_compact, box_decrypt, box_encrypt
from bridge.jose.key import Jwk
from bridge.jose.signature import sign, token_flattened, verify
from bridge.jose.signed_box import (
    MAX_SIGNED_BOX_BYTES,
    OpenedBox,
    SignedBoxClaims,
    open_signed_box,
    peek_claims_untrusted,
    seal_signed_box,
)

__all__ = [
    "MAX_BOX_BYTES",
    "MAX_SIGNED_BOX_BYTES",
    "Jwk",
    "OpenedBox",
    "SignedBoxClaims",
    "box_compact",
    "box_decrypt",
    "box_encrypt",
    "open_signed_box",
    "peek_claims_untrusted",
    "seal_signed_box",
    "shared_secret",
    "sign",
    "token_flattened",
    "verify",
]
