"""Models that several test files ask."""

import pytest
from small_models import GRAPHS, make

from spvae_tf.model.region_graph import poon_domingos


@pytest.fixture(scope="module", params=GRAPHS)
def gaussian(request):
    return make(*GRAPHS[request.param], "continuous", 0.6)


@pytest.fixture(scope="module")
def grid():
    return make(*GRAPHS["Poon-Domingos"], "continuous", 0.6)


@pytest.fixture(scope="module")
def binomial():
    """Two leaf regions side by side."""
    return make(poon_domingos(2, 4, 2), (2, 4), "discrete", 0.3)
