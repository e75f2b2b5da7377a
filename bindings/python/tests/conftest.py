import pytest

from cluster import Cluster


@pytest.fixture(scope="session")
def cluster():
    with Cluster() as running:
        yield running


@pytest.fixture(scope="session")
def small():
    with Cluster("mlp", 2) as running:
        yield running
