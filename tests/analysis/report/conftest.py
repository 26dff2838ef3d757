"""Databases with Optuna studies, for the tests of the search section."""

import math

import pytest

from tests.analysis.report.studies import add, single, trial


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Studies with one metric, with two (the last with trials), and without trials (the last created)."""
    url = f"sqlite:///{tmp_path_factory.mktemp('optuna')}/optuna.db"
    add(url, "single", single(), **{"train.max_steps": 100, "hydra.sweeper.objectives": ["val/perplexity"]})
    add(url, "upwards", [trial([value]) for value in (0.2, 0.5, 0.3)], ["maximize"])
    both = [
        trial([math.sin(i), math.cos(3 * i)], n_layer=1 + i % 4, lr=10 ** (-4 + 2 * (i % 7) / 7)) for i in range(24)
    ]
    both[5] = trial([2.0, math.inf], attrs={"diverged": True})
    add(url, "two", both, ["maximize", "minimize"], **{"hydra.sweeper.objectives": ["val/accuracy", "train/seconds"]})
    add(url, "empty", [])
    return url


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database to which tests add studies of their own."""
    return f"sqlite:///{tmp_path_factory.mktemp('optuna')}/optuna.db"
