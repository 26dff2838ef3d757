"""Sweeps that cannot be run."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.bad_input import PASSWORD, Case

GRID, SEARCH, COMPARE = (f"run.py -m hydra/sweeper={name}" for name in ("grid", "optuna", "compare"))
LOSSES = "loss=squentropy,cross_entropy"
KEY = "hydra.sweeper"
LONG = "a" * 256


def _function(body: str) -> str:
    return f"def extend(cfg, trial):\n    {body}\n"


def _write(name: str, text: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / name).write_text(text)

    return prepare


def _other_program(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "other.db")) as connection, connection:
        connection.execute("CREATE TABLE songs (title TEXT)")


def _mlflow_elsewhere(folder: Path) -> None:
    (folder / "elsewhere").symlink_to(folder / "folder")


SCHEMA = [
    Case(f"{GRID} {KEY}.params=5", f"{KEY}.params"),
    Case(f"{GRID} {KEY}.zip=null", f"{KEY}.zip"),
    Case(f"{GRID} {KEY}.zip=optimizer.lr", f"{KEY}.zip"),
    Case(f"{GRID} {KEY}.zip=[optimizer.l]", "optimizer.l is not an axis"),
    Case(f"{GRID} +{KEY}.zipp=[seed]", "zipp"),
    Case(f"{GRID} {KEY}.n_trials=5", "n_trials"),
    Case(f"{SEARCH} {KEY}.n_trials=0", f"{KEY}.n_trials=0: must be at least 1"),
    Case(f"{SEARCH} train.eval_every=0", "train.eval_every=0: must be a number of steps"),
    Case(f"{SEARCH} +train.foo=1", "unknown setting 'train.foo'"),
    Case(f"{SEARCH} {KEY}.n_trials=-1", f"{KEY}.n_trials=-1: must be at least 1"),
    Case(f"{SEARCH} {KEY}.n_trials=nan", f"{KEY}.n_trials"),
    Case(f"{SEARCH} {KEY}.n_jobs=0", f"{KEY}.n_jobs=0: must be at least 1"),
    Case(f"{SEARCH} {KEY}.max_failure_rate=-1", f"{KEY}.max_failure_rate=-1"),
    Case(f"{SEARCH} {KEY}.max_failure_rate=nan", f"{KEY}.max_failure_rate=nan"),
    Case(f"{SEARCH} {KEY}.sampler=null", f"{KEY}.sampler"),
    Case(f"{SEARCH} {KEY}.pruner=null", f"{KEY}.pruner"),
    Case(f"{SEARCH} {KEY}.pruner=5", f"{KEY}.pruner"),
    Case(f"{SEARCH} {KEY}.timeout=[1]", f"{KEY}.timeout"),
    Case(f"{SEARCH} {KEY}.timeout=soon", "give a time such as 90s"),
    Case(f"{SEARCH} {KEY}.timeout=-1", "give a time such as 90s"),
    Case(f"{SEARCH} {KEY}.enqueue=null", f"{KEY}.enqueue"),
    Case(f"{SEARCH} {KEY}.spaces=null", f"{KEY}.spaces"),
    Case(f"{SEARCH} {KEY}.objectives=[]", "objectives is empty"),
    Case(f"{SEARCH} {KEY}.objectives=[val/nl]", "did you mean 'val/nll'?"),
    Case(f"{SEARCH} {KEY}.direction=[null]", f"{KEY}.direction"),
    Case(f"{SEARCH} '{KEY}.constraints={{paramters: 3}}'", "did you mean 'parameters'?"),
    Case(f"{SEARCH} '{KEY}.constraints={{parameters: nan}}'", "must be finite"),
    Case(f"{SEARCH} '{KEY}.enqueue=[{{optimizer.lr: 100}}]'", "optimizer.lr=100 is outside of its axis"),
    Case(f"{SEARCH} {KEY}.enqueue=[curent]", "did you mean 'current'?"),
    Case(f"{COMPARE} {LOSSES} {KEY}.seeds=-1", f"{KEY}.seeds=-1: must be at least 1"),
    Case(f"{COMPARE} {LOSSES} {KEY}.seeds=1000000000", f"{KEY}.seeds=1000000000: must be at most 1000"),
    Case(f"{COMPARE} {LOSSES} {KEY}.tune_steps=0", f"{KEY}.tune_steps=0: must be at least 1"),
    Case(f"{COMPARE} {LOSSES} {KEY}.report=no.such", f"{KEY}.report: cannot import 'no.such'"),
]
NAMES = [
    Case(f"{SEARCH} {KEY}.study_name=..", f"{KEY}.study_name='..'"),
    Case(f"{SEARCH} '{KEY}.study_name=\"\"'", f"{KEY}.study_name=''"),
    Case(f"{SEARCH} {KEY}.study_name=../../up", f"{KEY}.study_name='../../up'"),
    Case(f"{SEARCH} {KEY}.study_name=/tmp/up", f"{KEY}.study_name='/tmp/up'"),
    Case(f"{SEARCH} {KEY}.study_name={LONG}", "longer than"),
    Case(f"{COMPARE} {LOSSES} {KEY}.study_name=..", f"{KEY}.study_name='..'"),
    Case(f"{GRID} hydra.sweep.dir=text.txt", "hydra.sweep.dir: cannot write text.txt"),
    Case(f"{SEARCH} hydra.sweep.dir=text.txt/sweeps", "hydra.sweep.dir: cannot write text.txt"),
    Case(f"{COMPARE} {LOSSES} hydra.sweep.dir=/proc/sweeps", "hydra.sweep.dir: cannot write /proc"),
]
AXES = [
    Case("run.py hydra/sweeper=grid", "needs -m"),
    Case(f"{GRID} 'seed=range(5,1)'", "seed=range(5,1) has no value"),
    Case(f"{GRID} 'seed=range(0,1e9)'", "seed=range(0,1e9) has more than 1,000 values"),
    Case(f"{GRID} 'seed=interval(1,5)'", "list the seeds"),
    Case(f"{GRID} seeds=-1", "seeds"),
    Case(f"{GRID} seeds=1000000000", "seeds=1000000000"),
    Case(f"{GRID} seeds=1,2 train.max_steps=5", "seeds cannot be an axis"),
    Case(f"{GRID} seed=1,2 seeds=3", "use one of them"),
    Case(f"{GRID} 'optimizer.lr=choice()'", "optimizer.lr=choice()"),
    Case(f"{GRID} 'optimizer.lr=range(1,4000000)'", "the grid has 35,999,991 points"),
    Case(f"{GRID} 'optimizer.lr=range(1e13,2e13)'", "the grid has 90,000,000,000,000 points"),
    Case(f"{GRID} 'optimizer.lr=range(0,1e300)'", "optimizer.lr=range(0,1e300) has more than"),
    Case(f"{GRID} 'optimizer.lr=range(0,inf)'", "a finite start and stop"),
    Case(f"{GRID} 'optimizer.lr=range(1,nan)'", "a finite start and stop"),
    Case(f"{GRID} 'optimizer.lr=range(1,5,0)'", "a step that is not 0"),
    Case(f"{GRID} 'optimizer.lr=range(5,1)'", "has no value"),
    Case(f"{GRID} 'loss=glob(x*)'", "loss=glob(x*) has no value"),
    Case(f"{GRID} 'optimizer.lr=interval(0,1)'", "a grid takes lists of values"),
    Case(
        f"{SEARCH} 'optimizer.lr=interval(1e-3,inf)'",
        "optimizer.lr=interval(1e-3,inf): an interval needs",
    ),
    Case(f"{SEARCH} 'optimizer.lr=interval(1,nan)'", "optimizer.lr=interval(1,nan): an interval needs finite bounds"),
    Case(f"{SEARCH} 'optimizer.lr=interval(3,1)'", "optimizer.lr=interval(3,1): an interval needs finite bounds"),
    Case(f"{SEARCH} 'optimizer.lr=interval(-1e308,1e308)'", "an interval needs finite bounds"),
    Case(f"{SEARCH} 'optimizer.lr=tag(log,interval(0,1))'", "above 0 with tag(log, ...)"),
    Case(f"{SEARCH} 'optimizer.lr=range(0,inf)'", "a finite start and stop"),
    Case(f"{SEARCH} 'optimizer.lr=range(0,1e300)'", "optimizer.lr=range(0,1e300) has more than"),
    Case(f"{SEARCH} 'optimizer.lr=range(0,1,1e-300)'", "optimizer.lr=range(0,1,1e-300) has more than"),
    Case(f"{SEARCH} 'optimizer.lr=shuffle(range(0,1e9))'", "optimizer.lr=shuffle(range(0,1e9)) has more than 10,000"),
    Case(f"{SEARCH} 'model.n_layer=float(range(0,1000000000))'", "has more than 10,000 values"),
    Case(f"{SEARCH} 'model.n_layer=shuffle(range(5,1))'", "has no value"),
    Case(f"{COMPARE} {LOSSES} 'optimizer.lr=shuffle(range(0,1e9))'", "has more than 10,000 values"),
    Case(
        f"{SEARCH} hydra/sweeper/sampler=grid train.warmup=0 model.dropout=0 'optimizer.lr=range(0,1e7)'",
        "the grid has 10,000,000 points",
    ),
    Case(f"{COMPARE} loss=squentropy", "needs two contenders"),
    Case(f"{COMPARE} loss=squentropy,squentropy", "squentropy is listed twice"),
    Case(f"{COMPARE} 'loss=glob(x*)'", "needs two contenders"),
]
DATABASES = [
    Case(f"{SEARCH} {KEY}.storage=null", f"{KEY}.storage"),
    Case(f"{SEARCH} {KEY}.storage=[1]", f"{KEY}.storage"),
    Case(f"{SEARCH} {KEY}.storage=optuna.db", "choose sqlite:///FILE"),
    Case(f"{SEARCH} {KEY}.storage=sqlite:///", "names no file"),
    Case(f"{SEARCH} '{KEY}.storage=\"sqlite:///:memory:\"'", "names no file"),
    Case(f"{SEARCH} {KEY}.storage=sqlite:///folder", "folder is a folder"),
    Case(f"{SEARCH} {KEY}.storage=sqlite:///text.txt", "file is not a database"),
    Case(f"{SEARCH} {KEY}.storage=sqlite:////proc/optuna.db", f"{KEY}.storage: cannot write /proc"),
    Case(f"{SEARCH} {KEY}.storage=sqlite:///other.db", "belongs to another program", _other_program),
    Case(f"{SEARCH} {KEY}.storage=sqlite:///mlflow.db", "is the database of MLflow"),
    Case(f"{SEARCH} {KEY}.storage=sqlite:///folder/../mlflow.db", "is the database of MLflow"),
    Case(f"{SEARCH} tracking.uri=sqlite:///optuna.db", "is the database of MLflow"),
    Case(f"{SEARCH} tracking.uri=5", "tracking.uri: input should be a valid string, not 5"),
    Case(
        f"{COMPARE} {LOSSES} tracking.uri=sqlite:///folder/m.db {KEY}.storage=sqlite:///elsewhere/m.db",
        "is the database of MLflow",
        _mlflow_elsewhere,
    ),
    Case(f"{SEARCH} {KEY}.storage=mysql://user:{PASSWORD}@host/studies", "mysql://user:***@host/studies: choose"),
    Case(f"{SEARCH} {KEY}.storage=postgresql://user:{PASSWORD}@127.0.0.1:9/studies", "refused"),
    Case(
        f"{SEARCH} {KEY}.storage=postgresql://user:{PASSWORD}@127.0.0.1:9/a tracking.uri=postgresql://127.0.0.1:8/a",
        "refused",
    ),
    Case(
        f"{SEARCH} {KEY}.storage=postgresql://user:{PASSWORD}@HOST/a tracking.uri=postgresql+psycopg2://host:5432/a",
        "is the database of MLflow",
    ),
    Case(f"{SEARCH} {KEY}.storage=postgresql+none://user:{PASSWORD}@127.0.0.1/studies", "postgresql+none://user:***@"),
    Case(f"{SEARCH} {KEY}.storage=postgresql://user:{PASSWORD}@127.0.0.1:port/studies", "port"),
]
COMPONENTS = [
    Case(f"{SEARCH} {KEY}.custom_search_space=no.such", f"{KEY}.custom_search_space: cannot import 'no.such'"),
    Case(f"{SEARCH} {KEY}.custom_search_space=math.sqrt", f"{KEY}.custom_search_space=math.sqrt fails: TypeError"),
    Case(
        f"{SEARCH} {KEY}.custom_search_space=raising.extend",
        "ZeroDivisionError: division by zero (raising.py, line 2)",
        _write("raising.py", _function("1 / 0")),
    ),
    Case(
        f"{SEARCH} {KEY}.custom_search_space=unknown.extend",
        f"{KEY}.custom_search_space: Could not override 'model.n_lair'",
        _write("unknown.py", _function("trial.suggest_int('model.n_lair', 1, 2)")),
    ),
    Case(f"{SEARCH} {KEY}.sampler._target_=optuna.samplers.Nope", "optuna.samplers.Nope"),
    Case(f"{SEARCH} {KEY}.sampler._target_=os.system", "os.system"),
    Case(f"{SEARCH} {KEY}.sampler.seed=-1", "eed must be between 0 and 2**32 - 1"),
    Case(f"{SEARCH} +{KEY}.sampler.sed=1", "sed"),
    Case(f"{SEARCH} hydra/sweeper/sampler=nsgaii {KEY}.sampler.population_size=0", "population_size"),
    Case(f"{SEARCH} {KEY}.pruner._target_=optuna.pruners.Nope", "did you mean 'NopPruner'?"),
    Case(f"{SEARCH} {KEY}.pruner.interval_steps=0", "interval_steps=0"),
    Case(f"{SEARCH} hydra/sweeper/pruner=hyperband {KEY}.pruner.reduction_factor=1", "hydra.sweeper.pruner fails"),
]
LAUNCHERS = [
    Case(f"{GRID} hydra.launcher.n_jobs=0", "hydra.launcher.n_jobs=0"),
    Case(f"{SEARCH} hydra.launcher.n_jobs=0", "hydra.launcher.n_jobs=0"),
    Case(f"{GRID} hydra.launcher.backend=none", "backend"),
    Case(f"{GRID} hydra.launcher.prefer=none", "prefer"),
    Case(f"{GRID} +hydra.launcher.inner_max_num_threads=0", "inner_max_num_threads=0"),
    Case(f"{GRID} hydra/launcher=submitit_slurm", "hydra/launcher=submitit_slurm needs the command srun of Slurm"),
    Case(f"{GRID} hydra/launcher=none", "hydra/launcher/none"),
    Case(f"{SEARCH} hydra/launcher=basic {KEY}.n_jobs=2", "needs a launcher that runs trials in parallel"),
]
VALUES = [
    Case(f"{GRID} train.clip_norm=-1,-2", "train.clip_norm=-1.0: must be above 0"),
    Case(f"{GRID} train.max_steps=5,-1", "train.max_steps=-1: must be at least 1"),
    Case(f"{GRID} optimizer.lr=1e-3,x", "optimizer.lr"),
    Case(f"{GRID} optimizer.lr=1e-3,1e-2,-1", "optimizer.lr=-1: must be at least 0"),
    Case(f"{GRID} model.dropout=0.1,2", "model.dropout=2"),
    Case(f"{GRID} optimizer._target_=no.such optimizer.lr=1e-3,1e-2", "optimizer._target_: cannot import 'no.such'"),
    Case(f"{GRID} seed=1,-2", "seed=-2: must be at least 0"),
    Case(f"{GRID} model.n_embd=16 model.n_head=3,5 model.n_layer=1", "n_embd=16 is not divisible by n_head=3"),
    Case(f"{SEARCH} train.clip_norm=-1,-2", "train.clip_norm=-1.0: must be above 0"),
    Case(f"{SEARCH} 'train.batch_size=range(-3,5)'", "train.batch_size=-3: must be at least 1"),
    Case(f"{SEARCH} seeds=2000", "seeds=2000: must be at most 1000"),
    Case(f"{SEARCH} 'seeds=range(1,4)'", "seeds cannot be an axis"),
    Case(f"{SEARCH} model.n_embd=16 'model.n_head=range(17,99)'", "n_embd=16 is not divisible by n_head=17"),
    Case(f"{COMPARE} {LOSSES} train.max_steps=-1", "train.max_steps=-1: must be at least 1"),
]
TRIALS = [
    Case(f"{GRID} +sede=3", "unknown setting 'sede'"),
    Case(f"{GRID} data=text", "data.source.train"),
    Case(f"{GRID} device=tpu", "device=tpu"),
    Case(f"{SEARCH} data=text data.source.train=nowhere.txt", "nowhere.txt"),
    Case(f"{SEARCH} data.window=here", "data.window"),
    Case(f"{COMPARE} {LOSSES} checkpoint_dir=text.txt", "checkpoint_dir: cannot write text.txt"),
]

CASES = [*SCHEMA, *NAMES, *AXES, *DATABASES, *COMPONENTS, *LAUNCHERS, *VALUES, *TRIALS]
