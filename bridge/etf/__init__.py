"""The External Term Format of Erlang."""

from bridge.etf.decode import (
    Decoding,
    decode_bare_untrusted,
    decode_prefix_untrusted,
    decode_term,
    decode_term_untrusted,
)
from bridge.etf.encode import encode_bare, encode_term
from bridge.etf.limits import DEFAULT_LIMITS, TermLimits
from bridge.etf.mapping import ErlangMap, term_identity
from bridge.etf.terms import (
    Atom,
    BitString,
    Closure,
    ExportFun,
    ImproperList,
    Pid,
    Port,
    Reference,
    set_atom_budget,
)
from bridge.etf.text import shorten

__all__ = [
    "DEFAULT_LIMITS",
    "Atom",
    "BitString",
    "Closure",
    "Decoding",
    "ErlangMap",
    "ExportFun",
    "ImproperList",
    "Pid",
    "Port",
    "Reference",
    "TermLimits",
    "decode_bare_untrusted",
    "decode_prefix_untrusted",
    "decode_term",
    "decode_term_untrusted",
    "encode_bare",
    "encode_term",
    "set_atom_budget",
    "shorten",
    "term_identity",
]
