"""Import the libraries that every run imports. Processes forked from here start a run in one second, not in six."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch is imported: see tests.commandline.ENVIRONMENT
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import hydra.core.hydra_config
import hydra.core.plugins
import mlflow
import mlflow.entities
import optuna
import pydantic
import torch

import nanosq.sweeps
import nanosq.tracking.mlflow_store
import nanosq.training_run

# PyTorch imports parts of itself when they are used for the first time.
torch.optim.AdamW(torch.nn.Linear(1, 1, device="meta").parameters())
torch.nn.init.normal_(torch.empty(1, device="meta"))
hydra.core.plugins.Plugins.instance()
__all__ = ["hydra", "mlflow", "nanosq", "optuna", "pydantic", "torch"]
