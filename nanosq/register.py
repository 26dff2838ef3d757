"""Register the model of a run, or of the best run of a sweep, in MLflow's model registry.

python -m nanosq.register RUN_ID|SWEEP NAME
"""

import shlex
import sys

from nanosq import command, terminal


def main(arguments: list[str] | None = None) -> int:
    """Register a model, and print its version and how to serve it."""
    parser = terminal.parser("nanosq.register", __doc__, "RUN_ID|SWEEP NAME")
    parser.add_argument("origin", metavar="RUN_ID|SWEEP", help="id of a run, or name of a sweep")
    parser.add_argument("name", metavar="NAME", help="name of the registered model; a name that exists gets a version")
    parser.add_argument("--metric", default="val/perplexity", help="decides which run of a sweep is best (%(default)s)")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow's store or server; default: as `mlflow ui`")
    parser.add_argument("--experiment", metavar="NAME", help="that of the sweep; default: nanosq")
    options = parser.parse_args(arguments)

    def work() -> None:
        from nanosq.errors import InputError
        from nanosq.sweeps.metrics import METRICS, Metric
        from nanosq.tracking import registry
        from nanosq.tracking.mlflow_store import MLflowStore

        if options.metric not in METRICS:
            raise InputError(f"--metric {options.metric} is not one of {', '.join(METRICS)}")
        store = MLflowStore(uri=options.tracking_uri, experiment=options.experiment)
        maximize = Metric(options.metric).maximize
        model = registry.register(store, options.origin, options.name, metric=options.metric, maximize=maximize)
        print(f"{model.name} version {model.version}: the model of the run {model.run}")
        print(f"page: {model.link}")
        serve = ["mlflow", "models", "serve", "--env-manager", "local", "--port", "5001", "-m", model.model_uri]
        print(f"serve: MLFLOW_TRACKING_URI={shlex.quote(model.tracking_uri)} {shlex.join(serve)}")

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
