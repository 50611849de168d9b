"""Altered terms for the term decoder: any exception but the promised two is a finding.

So is a term that does not survive being encoded and decoded again, and one that takes far more than linear
time. Run as ``python tests/fuzz/fuzz_etf_decode.py --seconds 60 --seed 1``; it ends with one line of counts,
and with status 1 if there was a finding.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
import zlib
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[2]))

from bridge.errors import DecodeError, LimitExceededError
from bridge.etf import (
    DEFAULT_LIMITS,
    Atom,
    Decoding,
    TermLimits,
    decode_bare_untrusted,
    decode_prefix_untrusted,
    decode_term,
    encode_bare,
    encode_term,
    set_atom_budget,
    term_identity,
)
from tests.support.vectors import otp_vectors

_LIMITS: Final = (
    DEFAULT_LIMITS,
    DEFAULT_LIMITS,
    DEFAULT_LIMITS,
    TermLimits(max_depth=3),
    TermLimits(max_elements=20),
    TermLimits(max_bytes=60, max_inflated_bytes=60),
    TermLimits(max_atoms=1),
)
_CORPUS: Final = 4_000
"""inputs that decoded, kept to be altered further; the oldest give way"""
_LONGEST: Final = 200_000
"""bytes of an input; altering makes some grow without end"""
_SECONDS_AND_PER_BYTE: Final = (2.0, 50e-6)
"""of processor time, far above what a linear decoder takes"""
_INTERESTING: Final = (0, 1, 2, 255, 82, 88, 90, 97, 98, 104, 107, 108, 109, 110, 112, 116, 119)


class Fuzzer:
    """Makes bare terms from those that OTP wrote, and counts what came of them."""

    def __init__(self, seed: int) -> None:
        self._source = random.Random(seed)
        self._corpus: list[bytes] = []
        for vectors in otp_vectors().values():
            for encoded in vectors.values():
                # What is compressed is of interest once altered inside.
                self._corpus.append(encoded[1:] if encoded[1] != 80 else encode_bare(decode_term(encoded)))
        self._corpus = [raw for raw in self._corpus if len(raw) <= _LONGEST // 10]
        self._seeds = len(self._corpus)
        self.executions = self.decoded = self.findings = 0

    def run_once(self) -> None:
        """Alter one input and decode it in one of the three ways a term can come."""
        source = self._source
        raw = self._altered(source.choice(self._corpus))[:_LONGEST]
        limits = source.choice(_LIMITS)
        table: list[Atom | bool] = [source.choice(_NAMES) for _ in range(source.randrange(8))]
        way = source.randrange(4)
        if way == 0:
            raw = (
                b"\x83P"
                + (len(raw) + source.choice((0, 0, 0, -1, 1))).to_bytes(4, "big", signed=True)
                + zlib.compress(raw)
            )
        elif way == 1:
            raw = b"\x83" + raw
        self.executions += 1
        start = time.process_time()
        try:
            try:
                if way < 2:
                    term, _ = decode_prefix_untrusted(raw, 0, limits)
                elif way == 2:
                    decoding = Decoding(raw, limits, table, size=source.choice((1, 7, 100)))
                    while not decoding.step_untrusted():
                        pass
                    term = decoding.value
                else:
                    term, end = decode_bare_untrusted(raw, 0, limits, table)
                    raw = raw[:end]
            except (DecodeError, LimitExceededError):
                return
            self._check(term)
        except Exception:
            self._report(f"{way} {raw.hex()} {table!r} {limits!r}\n{traceback.format_exc()}")
            return
        seconds, per_byte = _SECONDS_AND_PER_BYTE
        if (took := time.process_time() - start) > seconds + per_byte * len(raw):
            self._report(f"{took:.1f} s: {way} {raw.hex()} {table!r}")
        self.decoded += 1
        if way >= 2 and self._source.random() < 0.1:
            self._keep(raw)

    def _keep(self, raw: bytes) -> None:
        if len(self._corpus) >= _CORPUS:
            # Never one of OTP's own.
            self._corpus.pop(self._seeds)
        self._corpus.append(raw)

    def _check(self, term: Any) -> None:
        encoded = encode_term(term)
        again = decode_term(encoded)
        if encode_term(again) != encoded or term_identity(again) != term_identity(term):
            self._report(f"unequal: {encoded.hex()}")

    def _report(self, text: str) -> None:
        self.findings += 1
        if self.findings <= 10:
            sys.stderr.write(f"finding: {text}\n")

    def _altered(self, seed: bytes) -> bytes:
        source = self._source
        raw = bytearray(seed)
        for _ in range(source.randint(0, 5)):
            place = source.randrange(len(raw) + 1)
            match source.randrange(8):
                case 0 if place < len(raw):
                    raw[place] = source.choice((source.randrange(256), *_INTERESTING))
                case 1:
                    del raw[place : place + source.randint(1, 4)]
                case 2:
                    raw[place:place] = raw[: source.randint(0, 30)]
                case 3:
                    raw[place:place] = source.randbytes(source.randint(1, 4))
                case 4:
                    # Around the whole: deeper nesting.
                    head, tail = source.choice(_AROUND)
                    raw[:] = head + raw + tail
                case 5:
                    self._put_number(raw)
                case _:
                    self._swap_subterm(raw)
        return bytes(raw)

    def _subterm(self, raw: bytes | bytearray) -> tuple[int, int] | None:
        """Where a subterm is: whatever decodes at some place is taken for one."""
        for _ in range(8):
            place = self._source.randrange(len(raw) + 1)
            try:
                return place, decode_bare_untrusted(bytes(raw), place, DEFAULT_LIMITS, _NAMES)[1]
            except (DecodeError, LimitExceededError):
                continue
        return None

    def _swap_subterm(self, raw: bytearray) -> None:
        other = self._source.choice(self._corpus)
        here, there = self._subterm(raw), self._subterm(other)
        if here is not None and there is not None:
            raw[here[0] : here[1]] = other[there[0] : there[1]]

    def _put_number(self, raw: bytearray) -> None:
        """An atom becomes a number of the packet's table."""
        places = [place for place, byte in enumerate(raw[:2_000]) if byte == 119]
        if places:
            place = self._source.choice(places)
            length = raw[place + 1] if place + 1 < len(raw) else 0
            raw[place : place + 2 + length] = bytes((82, self._source.randrange(10)))


_NAMES: Final[list[Atom | bool]] = [Atom("ok"), True, False, Atom("n@h"), Atom(""), Atom("é" * 255)]
_AROUND: Final = (
    (b"h\x01", b""),
    (b"l\0\0\0\x01", b"j"),
    (b"l\0\0\0\x01j", b""),
    (b"t\0\0\0\x01", b"j"),
    (b"t\0\0\0\x01a\x01", b""),
    (b"t\0\0\0\x02j", b"a\x01a\x01"),
)


def main() -> None:
    """Fuzz for as long as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    set_atom_budget(None)
    fuzzer = Fuzzer(options.seed)
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        fuzzer.run_once()
    sys.stdout.write(
        f"fuzz_etf_decode: seed {options.seed}, {fuzzer.executions} executions,"
        f" {fuzzer.decoded} decoded, {fuzzer.findings} findings\n"
    )
    sys.exit(1 if fuzzer.findings else 0)


if __name__ == "__main__":
    main()
