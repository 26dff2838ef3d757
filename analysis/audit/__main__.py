"""Check the student report's claims against the numbers that its own settings and losses give.

python -m analysis.audit                   all claims
python -m analysis.audit --stories FILE    also count the GPT-2 tokens that occur in a sample of TinyStories
"""

import sys
from collections.abc import Sequence

from analysis import runs
from analysis.audit import summary
from nanosq import command, option, terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the section and return the exit status."""
    parser = terminal.parser("analysis.audit", __doc__)
    parser.add_argument(
        "--stories", type=option.existing, metavar="FILE", help="a sample of TinyStories, also compressed"
    )
    parser.add_argument(
        "--tracking-uri",
        type=option.name,
        metavar="URI",
        help="MLflow's store or server, where runs with the settings of Table 1 are looked up; default: as `mlflow ui`",
    )

    def work() -> None:
        options = parser.parse_args(arguments)
        audit = summary.section(runs.load(options.tracking_uri), stories=options.stories)
        print(summary.as_text(audit, terminal.width()))

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
