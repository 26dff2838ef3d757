"""Register the model of a run, or of the best run of a sweep, in MLflow's model registry.

python -m nanosq.register RUN_ID|SWEEP NAME

The best run is the first seed of the trial that the sweep has named best, in sweeps/SWEEP/trials.csv. Where this file
is missing, it is the best of the runs that the sweep has trained: not of those that it has found as recorded.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nanosq import command, option, terminal
from nanosq.suggestion import closest

if TYPE_CHECKING:
    from nanosq.tracking.mlflow_store import MLflowStore


def main(arguments: list[str] | None = None) -> int:
    """Register a model, and print its version and how to serve it."""
    parser = terminal.parser("nanosq.register", __doc__, "RUN_ID|SWEEP NAME")
    parser.add_argument("origin", metavar="RUN_ID|SWEEP", type=option.name, help="id of a run, or name of a sweep")
    parser.add_argument(
        "name", metavar="NAME", type=option.name, help="name of the registered model; a name that exists gets a version"
    )
    parser.add_argument("--metric", help="decides which run of a sweep is best; default: as in the sweep")
    parser.add_argument("--sweeps", type=Path, default="sweeps", metavar="DIR", help="folder of sweeps (%(default)s)")
    command.add_tracking_uri(parser)
    parser.add_argument("--experiment", type=option.name, metavar="NAME", help="that of the sweep; default: nanosq")

    def work() -> None:
        options = parser.parse_args(arguments)
        from nanosq.checkpoint import RUN_ID
        from nanosq.tracking import registry
        from nanosq.tracking.mlflow_store import MLflowStore

        store = MLflowStore(uri=options.tracking_uri, experiment=options.experiment)
        run_id, reason = (options.origin, "") if RUN_ID.fullmatch(options.origin) else _best(options, store)
        model = registry.register(store, run_id, options.name)
        if reason:
            print(reason)
        print(f"{model.name} version {model.version}: the model of the run {model.run}")
        print(f"page: {model.link}")
        serve = ["mlflow", "models", "serve", "--env-manager", "local", "--port", "5001", "-m", model.model_uri]
        print(f"serve: MLFLOW_TRACKING_URI={shlex.quote(model.tracking_uri)} {shlex.join(serve)}")

    return command.run(work)


def _best(options: argparse.Namespace, store: "MLflowStore") -> tuple[str, str]:
    """Return the id of the best run of a sweep, and a line that says why it is the best one."""
    from nanosq.errors import InputError
    from nanosq.filesystem import file_name
    from nanosq.sweeps import summary
    from nanosq.sweeps.metrics import METRICS, Metric
    from nanosq.tracking import registry

    sweep, metric = options.origin, options.metric
    if metric is not None and metric not in METRICS:
        raise InputError(f"--metric {metric} is not one of {', '.join(METRICS)}{closest(metric, METRICS)}")
    if sweep in (".", ".."):
        raise InputError(f"{sweep!r} is no name of a run or a sweep")
    folder = options.sweeps / file_name(sweep)
    trials = folder / "trials.csv"
    if trials.is_file():
        best = summary.read_best(trials, metric)
        return best.run, f"best of {sweep}: trial {best.number} with {best.metric} {best.value:.6g}, as in {trials}"
    if folder.is_dir():
        raise InputError(f"{sweep} is a comparison, which has a best run for each contender: give the id of a run")
    chosen = Metric() if metric is None else Metric(metric)
    run_id, value = registry.best_run(store, sweep, chosen.key, maximize=chosen.maximize)
    where = f"of the runs that it has trained, because there is no {trials}"
    return run_id, f"best of {sweep}: {chosen.key} {value:.6g}, {where}"


if __name__ == "__main__":
    sys.exit(main())
