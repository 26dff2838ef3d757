"""Options of Hydra and of the commands that do not exist, or exclude each other."""

from tests.bad_input import Case

CASES = [
    Case("run.py -m --cfg hydra", "Only one of"),
    Case("run.py -m --resolve", "--resolve flag"),
    Case("run.py -m --info defaults", "Only one of"),
    Case("run.py --cfg job --info", "Only one of"),
    Case("run.py --cfg job --package nothing", "package 'nothing' not found"),
    Case("run.py --cfg hydra --package job.nothing", "package 'job.nothing' not found"),
    Case("run.py --cfg", "argument --cfg/-c: expected one argument"),
    Case("run.py --cfg everything", "invalid choice: 'everything'"),
    Case("run.py --info everything", "invalid choice: 'everything'"),
    Case("run.py --multirun=yes", "--multirun"),
    Case("run.py --verbose", "unrecognized arguments: --verbose"),
    Case("run.py -x seed=1", "unrecognized arguments: -x"),
    Case("run.py --config-name", "expected one argument"),
    Case("run.py --experimental-rerun nowhere", "nowhere"),
    Case("run.py --experimental-rerun nowhere -m", "does not support --multirun"),
    Case("run.py -sc nothing", "install"),
    Case("run.py --cfg job seed=many", "seed=many"),
    Case("run.py --cfg job loss=squentropi", "did you mean 'squentropy'?"),
]
