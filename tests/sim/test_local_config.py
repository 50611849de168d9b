from pathlib import Path

import pytest

from bridge.cluster.local import LocalCluster
from bridge.errors import ConfigurationError, InvalidStateError
from bridge.sim.local_config import local_config


@pytest.mark.erlang
def test_a_server_joins_the_cluster_that_runs_in_a_directory(cluster: LocalCluster) -> None:
    config = local_config("nörd", cluster=cluster.directory)
    assert (config.name, config.node) == ("nörd", "nörd@127.0.0.1")
    assert (config.members, config.cookie) == (cluster.members, cluster.cookie)
    assert (config.epmd_port, config.store) == (cluster.epmd_port, cluster.store)
    assert config.key_file == str(cluster.directory / "keys" / "n%C3%B6rd.pem")
    assert (cluster.directory / "keys").stat().st_mode & 0o777 == 0o700


@pytest.mark.erlang
def test_a_name_that_no_server_can_have_is_refused(cluster: LocalCluster) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        local_config("", cluster=cluster.directory)


def test_without_a_cluster_it_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidStateError, match="khepri-bridge up"):
        local_config("north", cluster=tmp_path)
