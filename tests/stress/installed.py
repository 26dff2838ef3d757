"""Install the package from a wheel in a new environment, and run every command of the README in an empty folder.

python -m tests.stress.installed                           with this Python (15 minutes)
python -m tests.stress.installed --python python3.13       with another one
python -m tests.stress.installed --environment DIR         in an environment where the package is installed already

The wheel is built from an sdist. `python run.py` is `nanosq` there, and what is added to conf/ is in a folder of the
user, which --config-dir names. Other commands run as `python -m MODULE`, and then as console commands.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.commandline import ROOT, SMALL, environment

README = (ROOT / "README.md").read_text()
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
CONSOLE = {target.partition(":")[0].removesuffix(".__main__"): name for name, target in SCRIPTS.items()}
SMALL_MODEL = [setting for setting in SMALL if not setting.startswith("data.source")]
SMALL_GRU = [setting for setting in SMALL if not setting.startswith("model.n_head")]
TUNE = ["hydra.sweeper.n_trials=2", "hydra.sweeper.seeds=2", "hydra.sweeper.tune_steps=4"]
OWN = ["--config-dir", "conf"]
# What makes a command of the README short.
SHORT = {
    "python run.py loss=squentropy": [*SMALL, "train.keep_last=true"],
    "mlflow ui": ["--port=5123"],
    "python -m analysis.report": [],
    "python -m analysis.report.glossary": [],
    "python run.py --help": [],
    "python run.py optimizer=adamw": SMALL,
    "python -m analysis.report.compare RUN_A RUN_B": [],
    "python run.py -m hydra/sweeper=compare loss=cross_entropy,squentropy hydra.sweeper.timeout=10m": [*SMALL, *TUNE],
    "python run.py -m loss=cross_entropy,squentropy seed=1,2,3": SMALL,
    "python run.py -m hydra/sweeper=grid model.n_layer=1,2": [*SMALL, "model.dropout=0", "optimizer.lr=1e-3"],
    "python run.py -m hydra/sweeper=optuna loss=squentropy": [*SMALL, "hydra.sweeper.n_trials=2"],
    "optuna-dashboard sqlite:///optuna.db": ["--port=5124"],
    "python run.py data=text data.source.train='stories/*.txt'": SMALL_MODEL,
    "python run.py data=tinystories": [*SMALL_MODEL, "data.source.path=tinystories", "data.source.val_fraction=0.1"],
    "python run.py experiment=ten_minutes data=text data.source.train=stories.txt.xz": SMALL_MODEL,
    "python -m nanosq.data": [],
    "python -m nanosq.export RUN_ID model": [],
    'python -m nanosq.generate model --prompt "One day" --top-k 200 --max-new-tokens 40': [],
    "python -m nanosq.data write stories test test.txt": [],
    "python -m nanosq.evaluate model --data test.txt": [],
    "python run.py init_from=model loss=cross_entropy train.max_steps=100 optimizer.lr=2e-3": [
        *["data.source.n_train=150", "data.source.n_val=10", "data.source.n_test=10", "train.max_steps=6"],
        *["samples.length=8", "train.eval_every=3", "train.batch_size=4"],
    ],
    "python -m nanosq.register RUN_ID NAME": [],
    'python -c "import torch; print(torch.cuda.is_available())"': [],
    "torchrun --nproc_per_node=4 run.py train.batch_size=16": [*SMALL, "train.batch_size=4"],
    "python run.py -m hydra/sweeper=grid hydra.launcher.n_jobs=8": [
        *[*SMALL, "hydra.launcher.n_jobs=2"],
        *["model.dropout=0", "optimizer.lr=1e-3", "model.n_layer=1,2"],
    ],
    "python run.py model=gpt2 optimizer=adamw train.batch_size=4 data.tokenizer.vocabulary=full": SMALL,
    "python run.py loss=confidence_penalty loss.weight=0.2": [*OWN, *SMALL],
    "python run.py -m hydra/sweeper=compare loss=cross_entropy,confidence_penalty": [*OWN, *SMALL, *TUNE],
    "python run.py data=sums": [*OWN, *SMALL_MODEL, "data.source.n=200"],
    "python run.py model=gru": [*OWN, *SMALL_GRU],
    "python run.py -m hydra/sweeper=compare model=tiny,gru": [*OWN, *SMALL_GRU, *TUNE, "hydra.launcher.n_jobs=2"],
    "python run.py resume=RUN_ID train.max_steps=2400": [*SMALL, "train.max_steps=12", "loss=squentropy"],
    "mlflow server": ["--port=5125"],
    "python -m analysis.benchmarks.training --nanogpt DIR --speed": ["--help"],
    "python -m analysis.benchmarks.quality --nanogpt DIR": ["--help"],
    "python -m analysis.benchmarks.generation --nanogpt DIR": ["--help"],
    "python -m nanosq.sync": [],
    "python -m analysis.audit": [],
    "python run.py -m experiment=paper_grid": ["--help"],
}
FINISHED = "SELECT run_uuid FROM runs WHERE status = 'FINISHED' ORDER BY start_time"
LEFT_OUT = {"pip", "pytest", "analysis.study"}  # this program installs a wheel; tests and the study are in a checkout
PROGRAMS = "python|pytest|pip|mlflow|optuna-dashboard|-m"
PATTERN = re.compile(rf"```sh\n(.*?)```|```.*?```|`((?:{PROGRAMS})\s[^`]+)`", re.DOTALL)


def commands() -> Iterator[str]:
    """Yield the commands of the README once, in their order, without comments."""
    found = []
    for block, span in PATTERN.findall(README):
        lines = block.splitlines() if block else [span]
        found += [" ".join(re.sub(r" +# .*", "", line, flags=re.DOTALL).split()) for line in lines]
    named = ("python run.py " + line if line.startswith("-m ") else line for line in found if line)
    yield from (line for line in dict.fromkeys(named) if LEFT_OUT.isdisjoint(line.split()))


def installed_forms(line: str, folder: Path) -> Iterator[list[str]]:
    """Yield the command as it is typed where the package is installed: with and without `python`."""
    if "RUN" in line:
        with sqlite3.connect(folder / "mlflow.db") as store:
            ids = [row[0] for row in store.execute(FINISHED)]
        line = re.sub("RUN_(ID|A|B)", lambda name: ids[-1 if name[1] == "B" else 0], line)
    words = shlex.split(line)
    if words[:2] == ["python", "run.py"]:
        yield ["nanosq", *words[2:]]
    elif words[0] == "torchrun":
        yield ["torchrun", "--nproc_per_node=2", "--no-python", "nanosq", *words[3:]]
    else:
        yield words
        if words[1] == "-m" and words[2] in CONSOLE:
            if words[2] == "nanosq.export":  # it refuses a folder that exists
                shutil.rmtree(folder / words[-1])
            yield [CONSOLE[words[2]], *words[3:]]


def run(command: list[str], folder: Path, variables: dict[str, str]) -> str:
    """Run a command, or a server until it answers. Return the end of its output if it failed, else an empty text."""
    port = next((word.partition("=")[2] for word in command if word.startswith("--port=")), None)
    log = folder.parent / "output"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=output, stderr=output, stdin=subprocess.DEVNULL, process_group=0
        )
        if port is None:
            failed = process.wait() != 0
        else:
            failed = not answers(f"http://127.0.0.1:{port}/", process)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(timeout=60)
    return log.read_text()[-3000:] if failed else ""


def answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Return whether a server answers within 120 s."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            return urllib.request.urlopen(url, timeout=10).status == 200
        except OSError:
            time.sleep(0.5)
    return False


def install(python: str, folder: Path) -> Path:
    """Build an sdist, from it a wheel, and install the wheel in a new environment. Return the environment."""
    source, new = folder / "source", folder / "environment"
    ignored = shutil.ignore_patterns(".git", "__pycache__", ".*_cache", "*.egg-info", "build")
    shutil.copytree(ROOT, source, ignore=ignored)
    pip = [str(new / "bin/python"), "-m", "pip", "--quiet", "install"]
    for command in (
        [python, "-m", "venv", str(new)],
        [*pip, "torch==2.13.0", "build", "twine"],
        [str(new / "bin/python"), "-m", "build", "--outdir", str(folder / "dist"), str(source)],
        ["sh", "-c", f"{new}/bin/twine check --strict {folder}/dist/*"],
    ):
        _run(command)
    (wheel,) = folder.glob("dist/*.whl")
    _run([*pip, f"{wheel}[dashboard,hf]"])
    return new


def _run(command: list[str]) -> None:
    print(shlex.join(command), flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL if "build" in command else None)


def prepare(folder: Path) -> None:
    """Write the files that the README gives or takes from its reader."""
    for name, content in re.findall(r"```(?:python|yaml)\n# (?:at the end of )?(\S+)\n(.*?)```", README, re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    function = (folder / "nanosq/losses.py").read_text()  # in a module of the user, as the package is installed
    shutil.rmtree(folder / "nanosq")
    imports = ("torch import Tensor", "nanosq.losses import cross_entropy", "nanosq.ranges import NonNegative")
    (folder / "mylosses.py").write_text("".join(f"from {line}\n" for line in imports) + function)
    penalty = folder / "conf/loss/confidence_penalty.yaml"
    penalty.write_text(penalty.read_text().replace("nanosq.losses", "mylosses"))
    texts = {"stories/one.txt": 0, "stories.txt": 0, "tinystories/train.txt": 0, "tinystories/valid.txt": 300}
    for name, first in texts.items():
        stories = [f"Once upon a time there were {n} cats. They sat in a tree.\n" for n in range(first, first + 300)]
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("<|endoftext|>".join(stories))
    subprocess.run(["xz", "stories.txt"], cwd=folder, check=True)


def main() -> int:
    """Print a line for each command and return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, metavar="PROGRAM", help="default: this one")
    parser.add_argument("--environment", type=Path, metavar="DIR", help="default: a new one")
    options = parser.parse_args()
    n_failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        chosen = options.environment.resolve() if options.environment else install(options.python, Path(scratch))
        folder = Path(scratch, "empty")
        folder.mkdir()
        prepare(folder)
        kept = {key: value for key, value in environment().items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        variables = kept | {"PATH": f"{chosen / 'bin'}:{kept['PATH']}"}
        for line in commands():
            if line not in SHORT:
                print(f"NEW      {line}: give it an entry in SHORT")
                n_failed += 1
                continue
            for words in installed_forms(line, folder):
                begin = time.monotonic()
                failure = run([*words, *SHORT[line]], folder, variables)
                n_failed += bool(failure)
                print(
                    f"{'FAILED' if failure else 'ok':6} {time.monotonic() - begin:5.1f} s  {shlex.join(words)}",
                    flush=True,
                )
                print(failure, end="")
    print(f"{n_failed} failed")
    return int(n_failed > 0)


if __name__ == "__main__":
    sys.exit(main())
