"""Options of Hydra and of the commands that do not exist, or exclude each other."""

from tests.bad_input import Case

CASES = [
    Case("run.py -m --cfg hydra", "Only one of"),
    Case("run.py --cfg job --info", "Only one of"),
    Case("run.py -m --info defaults", "Only one of"),
    Case("run.py -m --resolve", "--resolve flag"),
    Case("run.py --cfg job --package nothing", "package 'nothing' not found"),
]
