"""The bytes that a real OTP 25 wrote (``scripts/make_vectors.escript``)."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.etf import decode_term, encode_term

_FILE = Path(__file__).parents[1] / "vectors" / "etf" / "otp25.tsv"
VECTORS = [
    tuple(line.split("\t")) for line in _FILE.read_text().splitlines() if line and not line.startswith("#")
]


@pytest.mark.parametrize(("name", "encoded", "printed"), VECTORS, ids=[vector[0] for vector in VECTORS])
def test_what_otp_wrote_decodes_and_encodes_to_an_equal_term(name: str, encoded: str, printed: str) -> None:
    del name, printed
    term = decode_term(bytes.fromhex(encoded))
    again = decode_term(encode_term(term))
    assert again == term
    assert type(again) is type(term)
