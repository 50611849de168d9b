"""``khepri-bridge`` whose simulation servers have a data plane that can be frozen (``freezing_plane.py``)."""

from bridge.cli.app import main
from bridge.sim.dataplane import client

if __name__ == "__main__":
    client.PROGRAM = "tests.support.freezing_plane"
    main()
