"""``khepri-bridge homeserver``."""

from __future__ import annotations

from typer.testing import CliRunner

from bridge.cli.app import build_app


def test_beyond_this_machine_the_service_wants_tls_before_it_looks_for_a_cluster() -> None:
    result = CliRunner().invoke(build_app(), ["homeserver", "serve", "--listen", "0.0.0.0:8080"])
    assert result.exit_code == 1
    assert "--https-cert" in str(result.exception)
