"""What all tests share: one thread, as more only slow tiny networks down, and training without its picture."""

import os

import pytest

# Before torch is imported, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@pytest.fixture
def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing curves.png takes several times as long as the epochs of tiny networks."""
    monkeypatch.setattr("piggyback_gan.training_run.plot_curves", lambda records, path: None)


@pytest.fixture
def same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written at different times is equal."""
    from running import SAME_TIME  # imports torch

    for name, value in SAME_TIME.items():
        monkeypatch.setenv(name, value)
