"""Options of the commands of analysis/ and nanosq/: values, names and files that cannot be used."""

import os
import sqlite3
from pathlib import Path

from tests.bad_input import PASSWORD, Case

RUN = "0123456789abcdef0123456789abcdef"
LONG = "x" * 300
NOT_UTF8 = "\udcff"  # the byte ff, as Python decodes it from the command line
STORE = f"postgresql://user:{PASSWORD}@127.0.0.1:1/optuna"


def a_study(folder: Path) -> None:
    """Write a storage of Optuna with an empty study."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.create_study(study_name="my_search", storage=f"sqlite:///{folder}/optuna.db")


def no_studies(folder: Path) -> None:
    """Write a database of another program."""
    with sqlite3.connect(folder / "other.db") as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()


def texts(folder: Path) -> None:
    """Write files that hold no text."""
    (folder / "binary.txt").write_bytes(bytes(range(256)))
    (folder / "broken.jsonl").write_text('{"text": \n{"text": "Once"}\n')
    (folder / "other.jsonl").write_text('{"body": "Once"}\n')
    (folder / "image.png").write_bytes(b"\x89PNG")


def occupied(folder: Path) -> None:
    """Write a folder with a file, and a link that leads nowhere."""
    (folder / "full").mkdir()
    (folder / "full/file").touch()
    (folder / "dangling").symlink_to("nowhere/file")


def a_pipe(folder: Path) -> None:
    """Write a file that is not a regular one."""
    os.mkfifo(folder / "pipe.csv")


REPORT = [
    Case("analysis.report --out text.txt", "--out: cannot write text.txt: text.txt is not a folder"),
    Case("analysis.report --out text.txt/report", "text.txt is not a folder"),
    Case("analysis.report --out /proc/report", "--out: cannot write /proc/report"),
    Case("analysis.report --out ''", "--out: is empty"),
    Case(f"analysis.report --out {LONG}", "File name too long"),
    Case("analysis.report --study my_serach", "did you mean 'my_search'?", a_study),
    Case("analysis.report --study my_search", "No trial has started in sqlite:///optuna.db, study my_search", a_study),
    Case("analysis.report --study my_search", "--study: There is no database optuna.db"),
    Case("analysis.report --storage sqlite:///nowhere.db", "--storage: There is no database nowhere.db"),
    Case("analysis.report --storage sqlite:///text.txt", "file is not a database"),
    Case("analysis.report --storage optuna.db", "Could not parse SQLAlchemy URL"),
    Case("analysis.report --storage sqlite:///other.db", "has no study of Optuna", no_studies),
    Case(f"analysis.report --storage {STORE}", "cannot be read"),
    Case("analysis.report --experiment nowhere", "no run of experiment 'nowhere'"),
    Case("analysis.report --experiment ''", "--experiment: is empty"),
    Case("analysis.report --tracking-uri ''", "--tracking-uri: is empty"),
    Case("analysis.report --agianst steps", "there is no option --agianst; did you mean '--against'?"),
    Case("analysis.report --against time", "'time' is not one of steps, tokens, seconds"),
    Case("analysis.report --stories nowhere.txt", "--stories: there is no file nowhere.txt"),
    Case("analysis.report --stories folder", "--stories: there is no file folder"),
    Case("analysis.report --st x", "ambiguous option: --st could match"),
    Case(f"analysis.report http://user:{PASSWORD}@host", "too many arguments"),
    Case("analysis.report.compare", "the following arguments are required: RUN"),
    Case("analysis.report.compare one", "required: RUN"),
    Case("analysis.report.compare one two three", "too many arguments: three"),
    Case("analysis.report.compare one two", "experiment nanosq has no runs"),
    Case("analysis.report.compare one ''", "RUN: is empty"),
    Case("analysis.report.compare one two --out text.txt", "text.txt is not a folder"),
    Case("analysis.report.comparison --storage nonsense", "Could not parse SQLAlchemy URL"),
    Case("analysis.report.comparison nowhere", "There is no database optuna.db"),
    Case("analysis.report.curves --against stps", "did you mean 'steps'?"),
    Case("analysis.report.curves 3f2a", "there is no run '3f2a'"),
    Case("analysis.report.curves --out", "--out: expected one argument"),
    Case("analysis.report.grid my_grid", "no grid 'my_grid'"),
    Case("analysis.report.grid --out /dev/null", "/dev/null is not a folder"),
    Case("analysis.report.search --study my-search", "did you mean 'my_search'?", a_study),
    Case("analysis.report.search --storage sqlite://", "There is no database in memory"),
    Case("analysis.report.search --out text.txt", "text.txt is not a folder"),
    Case("analysis.report.glossary nll", "too many arguments: nll"),
    Case("analysis.audit --stories nowhere.txt", "--stories: there is no file nowhere.txt"),
    Case("analysis.audit --storis text.txt", "did you mean '--stories'?"),
]
BENCHMARKS = [
    Case("analysis.benchmarks.attention --rounds 0", "--rounds: '0' is not a whole number of at least 1"),
    Case("analysis.benchmarks.data --rounds -1", "--rounds: '-1' is not a whole number"),
    Case("analysis.benchmarks.data --megabytes nan", "--megabytes: 'nan' is not a positive number"),
    Case("analysis.benchmarks.data --nanogpt folder", "folder is not a checkout of karpathy/nanoGPT"),
    Case("analysis.benchmarks.floor --seed -1", "--seed: '-1' is not a whole number from 0"),
    Case("analysis.benchmarks.floor --stories 1", "--stories: '1' is not a whole number of at least 2"),
    Case("analysis.benchmarks.generation --nanogpt folder", "folder is not a checkout of karpathy/nanoGPT"),
    Case("analysis.benchmarks.generation --batches 1 x", "--batches: 'x' is not a whole number"),
    Case("analysis.benchmarks.growth --axes dept", "did you mean 'depth'?"),
    Case("analysis.benchmarks.growth --device tpu", "device=tpu"),
    Case("analysis.benchmarks.loss --losses squentropi", "did you mean 'squentropy'?"),
    Case("analysis.benchmarks.loss --out text.txt", "text.txt is not a folder"),
    Case("analysis.benchmarks.neighbours --against folder", "folder is not a checkout of nanosq"),
    Case("analysis.benchmarks.quality --nanogpt folder", "the following arguments are required: --train, --valid"),
    Case("analysis.benchmarks.startup --rounds many", "--rounds: 'many' is not a whole number"),
    Case("analysis.benchmarks.sweep", "one of the arguments --nanogpt --parallel --overhead --pruning is required"),
    Case("analysis.benchmarks.sweep --pruning medan", "did you mean 'median'?"),
    Case("analysis.benchmarks.training --shapes wid", "did you mean 'wide'?"),
    Case("analysis.benchmarks.training", "--nanogpt DIR is needed"),
    Case("analysis.benchmarks.training --nanogpt nowhere", "nowhere is not a checkout of karpathy/nanoGPT"),
]
DATA = [
    Case("nanosq.data lst", "'lst' is not one of list, verify, write, remove; did you mean 'list'?"),
    Case("nanosq.data verify nowhere", "no 'nowhere' in cache: it holds no corpus"),
    Case("nanosq.data verify ..", "no '..' in cache"),
    Case("nanosq.data remove", "remove needs the names of corpora"),
    Case("nanosq.data remove ../folder", "no '../folder' in cache"),
    Case("nanosq.data write", "write needs the name of a corpus, a split and a file"),
    Case("nanosq.data write one train out.txt", "no 'one' in cache"),
    Case("nanosq.data write one tran out.txt", "no split tran: choose train, val, test; did you mean 'train'?"),
    Case("nanosq.data write one train out.csv", "choose a name that ends in .txt"),
    Case("nanosq.data write one train nowhere/out.txt", "there is no folder nowhere"),
    Case("nanosq.data list --cache-dir text.txt", "--cache-dir: text.txt is not a folder"),
    Case("nanosq.data list --cach-dir x", "did you mean '--cache-dir'?"),
]
MODELS = [
    Case("nanosq.generate", "the following arguments are required: MODEL"),
    Case("nanosq.generate nowhere", "there is no model nowhere"),
    Case("nanosq.generate ''", "MODEL: is empty"),
    Case(f"nanosq.generate {RUN}", RUN),
    Case("nanosq.generate text.txt", "text.txt is not a checkpoint"),
    Case("nanosq.generate folder", "folder"),
    Case("nanosq.generate one two", "give one model, or two with --compare"),
    Case("nanosq.generate --compare one", "--compare takes two models"),
    Case("nanosq.generate nowhere --num 0", "--num: '0' is not a whole number from 1 to 10000"),
    Case("nanosq.generate nowhere --max-new-tokens 1e9", "--max-new-tokens: '1e9' is not a whole number"),
    Case("nanosq.generate nowhere --max-new-tokens -1", "--max-new-tokens=-1: must be at least 0"),
    Case("nanosq.generate nowhere --temperature nan", "--temperature=nan: must be finite"),
    Case("nanosq.generate nowhere --temperature -1", "--temperature=-1.0: must be at least 0"),
    Case("nanosq.generate nowhere --temperature hot", "--temperature: 'hot' is not a number"),
    Case("nanosq.generate nowhere --top-p 2", "--top-p=2.0: must be at most 1"),
    Case("nanosq.generate nowhere --top-k 0", "--top-k=0: must be at least 1"),
    Case("nanosq.generate nowhere --seed 1180591620717411303424", "--seed: '1180591620717411303424' is not a whole"),
    Case("nanosq.generate nowhere --device tpu", "device=tpu"),
    Case("nanosq.generate nowhere --precision fp8", "'fp8' is not one of auto, fp32, bf16, fp16"),
    Case(f"nanosq.generate nowhere --prompt {NOT_UTF8}", "--prompt: '\\udcff' is not UTF-8"),
    Case("nanosq.generate nowhere --prompt", "--prompt: expected one argument"),
    Case("nanosq.evaluate nowhere", "the following arguments are required: --data"),
    Case("nanosq.evaluate nowhere --data nowhere.txt", "--data: there is no file nowhere.txt"),
    Case("nanosq.evaluate nowhere --data folder", "--data: folder is a directory"),
    Case("nanosq.evaluate nowhere --data empty.txt", "empty.txt is empty"),
    Case("nanosq.evaluate nowhere --data binary.txt", "binary.txt", texts),
    Case("nanosq.evaluate nowhere --data broken.jsonl", "broken.jsonl, line 1: not JSON", texts),
    Case("nanosq.evaluate nowhere --data other.jsonl", "set --column", texts),
    Case("nanosq.evaluate nowhere --data image.png", "image.png", texts),
    Case("nanosq.evaluate nowhere --data text.txt", "there is no model nowhere"),
    Case("nanosq.evaluate nowhere --data text.txt --csv text.txt", "--csv would replace text.txt"),
    Case("nanosq.evaluate nowhere --data text.txt --csv folder", "folder is a folder"),
    Case("nanosq.evaluate nowhere --data text.txt --csv nowhere/x.csv", "there is no folder nowhere"),
    Case("nanosq.evaluate nowhere --data text.txt --csv pipe.csv", "pipe.csv is not a regular file", a_pipe),
    Case("nanosq.evaluate nowhere --data text.txt --windows 3", "add --protocol report"),
    Case("nanosq.evaluate nowhere --data text.txt --protocol report --windows 0", "--windows: '0' is not a whole"),
    Case("nanosq.evaluate nowhere --data text.txt --separator ''", "--separator is empty"),
    Case("nanosq.export nowhere", "the following arguments are required: OUT"),
    Case("nanosq.export nowhere full", "full exists already: name a new folder", occupied),
    Case("nanosq.export nowhere text.txt", "text.txt exists already"),
    Case("nanosq.export nowhere text.txt/out", "text.txt is not a folder"),
    Case("nanosq.export nowhere ''", "OUT: is empty"),
    Case("nanosq.export nowhere /proc/out", "cannot write /proc/out"),
    Case("nanosq.export nowhere out", "there is no model nowhere"),
    Case("nanosq.register nowhere", "the following arguments are required: NAME"),
    Case("nanosq.register nowhere name", "there is no run and no sweep nowhere"),
    Case(f"nanosq.register {RUN} a/b", "'a/b' cannot be the name of a registered model"),
    Case(f"nanosq.register {RUN} ''", "NAME: is empty"),
    Case("nanosq.register .. name", "'..' is no name of a run or a sweep"),
    Case("nanosq.register nowhere name --metric val/perplxity", "did you mean"),
]
CASES = [*REPORT, *BENCHMARKS, *DATA, *MODELS]
