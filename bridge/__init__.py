"""Khepri Bridge: Python simulation servers in a Khepri cluster."""

__version__ = "0.5.0"
