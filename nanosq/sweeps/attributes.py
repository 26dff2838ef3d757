"""Names of the attributes that a search stores in Optuna's database.

analysis/report/optuna_study.py reads these attributes. It repeats their names, because it does not import this package.
"""

# Of a study.
SETTINGS = "settings"  # the settings that all of its trials share
CODE = "code"  # the hashes of the code that its last start had
MIXED = "several_programs"  # whether, at any start, trials had other code than this start
STEP = "step"  # unit of the steps of its intermediate values
PER_MILLE = "thousandths of training"  # value of STEP; studies of older versions have training steps, and no STEP
COMPARISON = "comparison"  # of a contender: the comparison that it belongs to

# Of a trial.
RUN_ID = "mlflow_run_id"
LINK = "mlflow_link"  # to the run of the first seed
ERRORS = "standard_errors"  # of the metrics over the seeds
DIVERGED = "diverged"
ENQUEUED = "enqueued"  # the item of hydra.sweeper.enqueue that it tries
INFEASIBLE = "infeasible"  # its setting was refused before training
COST = "cost"  # the fields of budget.Cost
PRUNED = "pruned"  # set by the first run of the trial that the pruner ends


def run_id_key(repeat: int) -> str:
    """Return the attribute for the run of a seed: mlflow_run_id, mlflow_run_id_1, mlflow_run_id_2, ..."""
    return f"{RUN_ID}_{repeat}" if repeat else RUN_ID
