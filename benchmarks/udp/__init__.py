"""Datagram sessions against what the machine, plain sockets and QUIC give in the same run."""
