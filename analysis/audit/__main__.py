"""Check the student report's claims against the numbers that its own settings and losses give.

python -m analysis.audit                   all claims
python -m analysis.audit --stories FILE    also count the GPT-2 tokens that occur in a sample of TinyStories
"""

import sys
from pathlib import Path

from analysis import runs
from analysis.audit import summary
from nanosq import command, terminal


def main() -> int:
    """Print the section and return the exit status."""
    parser = terminal.parser("analysis.audit", __doc__)
    parser.add_argument("--stories", type=Path, metavar="FILE", help="a sample of TinyStories, also compressed")
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow's store or server, where runs with the settings of Table 1 are looked up; default: as `mlflow ui`",
    )
    arguments = parser.parse_args()

    def work() -> None:
        audit = summary.section(runs.load(arguments.tracking_uri), stories=arguments.stories)
        print(summary.as_text(audit, terminal.width()))

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
