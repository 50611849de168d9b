"""Entity state as arrays: shared world slots, quantised records and the state datagram."""

from bridge.replication.codec import (
    MAX_RECORDS,
    POSITION_STEP,
    RECORD,
    VELOCITY_STEP,
    Records,
    decode_records_untrusted,
    decode_state_untrusted,
    dequantise,
    encode_records,
    encode_state,
    quantise,
    state_hash,
)
from bridge.replication.world import World, WorldState

__all__ = [
    "MAX_RECORDS",
    "POSITION_STEP",
    "RECORD",
    "VELOCITY_STEP",
    "Records",
    "World",
    "WorldState",
    "decode_records_untrusted",
    "decode_state_untrusted",
    "dequantise",
    "encode_records",
    "encode_state",
    "quantise",
    "state_hash",
]
