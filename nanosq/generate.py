"""Sample texts from a model.

python -m nanosq.generate RUN_ID --prompt "Once upon a time"
"""

import sys

from nanosq import command


def main(arguments: list[str] | None = None) -> int:
    """Print texts of a model."""
    parser = command.parser("nanosq.generate", __doc__, "MODEL")
    parser.add_argument("--prompt", default="", help="beginning of every text")
    parser.add_argument("--num", type=int, default=1, help="number of texts")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="largest number of new tokens")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 always takes the most likely token")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    def work() -> None:
        from nanosq.generation import generate

        trained = command.load(options)
        texts = generate(
            trained.build(),
            trained.tokenizer,
            prompt=options.prompt,
            count=options.num,
            length=options.max_new_tokens,
            temperature=options.temperature,
            seed=options.seed,
        )
        print("\n\n---\n\n".join(texts))

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
