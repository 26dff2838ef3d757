"""Training that starts from weights: their sizes, the rows of a cut vocabulary, the model that is chosen, identity."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.configuration import compose
from nanosq import checkpoint, command_line, config, identity, initial_weights, start
from nanosq.data import tokenizers
from nanosq.data.bpe import GPT2_SIZE, N_BYTES
from nanosq.data.tokenizers import GPT2, CutGPT2, Tokenizer
from nanosq.export import export
from nanosq.huggingface.other_tokenizer import HuggingFaceTokenizer
from nanosq.model import GPT
from nanosq.pretrained import Pretrained
from nanosq.start import Start
from nanosq.tracking import Store
from tests.commandline import SMALL, command, printed_perplexity, runs

SIZES: dict[str, Any] = {
    "n_layer": 1,
    "n_head": 1,
    "n_embd": 4,
    "block_size": 8,
    "bias": True,
    "activation": "gelu_tanh",
}
EMPTY: dict[str, Any] = {"tokenizer": {}, "model": {}, "optimizer": {}, "scaler": {}}
STATE = EMPTY | {"progress": {"step": 0}, "run_id": "", "splits": []}
DATA = [setting for setting in SMALL if not setting.startswith("model.")]
BYTES = ["data.tokenizer._target_=nanosq.data.tokenizers.byte_level", "~data.tokenizer.vocabulary"]
STILL = ["optimizer.lr=0", "samples.count=0"]  # the weights do not change


def random_weights(tokenizer: Tokenizer, **sizes: Any) -> Pretrained:
    torch.manual_seed(0)
    architecture = {**SIZES, **sizes}
    weights = GPT(tokenizer.vocab_size, **architecture, embedding_std=1.0).state_dict()
    return Pretrained(Path("weights"), architecture, weights, tokenizer, {})


FULL = random_weights(GPT2(pad_to=GPT2_SIZE + 3))
MERGED = st.lists(st.integers(N_BYTES, GPT2_SIZE - 2), unique=True, max_size=30).map(sorted)


def logits(pretrained: Pretrained, weights: dict[str, torch.Tensor], vocab_size: int, ids: list[int]) -> torch.Tensor:
    block_size = len(weights["position_embedding.weight"])
    model = GPT(vocab_size, **{**pretrained.architecture, "block_size": block_size}).eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        return model(torch.tensor([ids]))[0] @ model.head_weight.T


@settings(max_examples=20)
@given(MERGED, st.integers(0, 3), st.integers(1, 8), st.randoms())
def test_a_cut_model_has_the_logits_of_the_tokens_that_are_kept(
    merged: list[int], n_padding: int, block_size: int, random: Any
) -> None:
    """Also for a cut of a cut."""
    size = N_BYTES + len(merged) + 1
    cut = CutGPT2(merged, pad_to=size + n_padding)
    kept = [*range(N_BYTES), *merged, GPT2_SIZE - 1, *range(GPT2_SIZE, GPT2_SIZE + n_padding)]
    weights = initial_weights.fit(FULL, cut, block_size)
    ids = [random.randrange(len(kept)) for _ in range(block_size)]
    before = logits(FULL, dict(FULL.weights), FULL.tokenizer.vocab_size, [kept[i] for i in ids])
    after = logits(FULL, weights, cut.vocab_size, ids)
    torch.testing.assert_close(after, before[:, kept])
    smaller = CutGPT2(merged[::2])
    architecture = {**FULL.architecture, "block_size": block_size}
    of_cut = replace(FULL, architecture=architecture, weights=weights, tokenizer=cut)
    for name, weight in initial_weights.fit(of_cut, smaller, block_size).items():
        assert torch.equal(weight, initial_weights.fit(FULL, smaller, block_size)[name])


def test_an_equal_tokenizer_takes_all_rows() -> None:
    for tokenizer in (tokenizers.byte_level(), CutGPT2([300], pad_to=260)):
        weights = random_weights(tokenizer)
        fitted = initial_weights.fit(weights, tokenizers.load(tokenizer.state()), 8)
        assert all(torch.equal(fitted[name], weight) for name, weight in weights.weights.items())


@pytest.mark.parametrize(
    ("tokenizer", "trained", "message"),
    [
        (CutGPT2([262, 300]), CutGPT2([262]), "lacks 1 of the tokens of this one, such as ' l'"),
        (GPT2(), CutGPT2([262]), "lacks 49,999 of the tokens"),
        (GPT2(pad_to=50304), GPT2(), "pad_to=50304 adds 47 ids.* has 0 of them: set data.tokenizer.pad_to=null"),
        (CutGPT2([], pad_to=260), CutGPT2([], pad_to=258), "adds 3 ids.* has 1 of them: .*pad_to=258"),
        (tokenizers.byte_level(), GPT2(), r"another tokenizer \(GPT2\) than this run has \(ByteLevel\)"),
        (
            CutGPT2([]),
            tokenizers.byte_level(),
            r"another tokenizer \(ByteLevel\) than this run has \(CutGPT2\): set data.tokenizer as it was",
        ),
        (CutGPT2([]), HuggingFaceTokenizer("{}", end=0, pad_to=9), "only weights with GPT-2's tokens, or a part of"),
    ],
)
def test_rows_that_the_weights_do_not_have(tokenizer: Tokenizer, trained: Tokenizer, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        initial_weights.rows(tokenizer, trained, "weights")


@pytest.mark.parametrize("name", ["position_embedding.weight", "token_embedding.weight", "final_norm.weight"])
@pytest.mark.parametrize("n_rows", [0, 5])
def test_weights_of_another_model(name: str, n_rows: int) -> None:
    damaged = {key: weight for key, weight in FULL.weights.items() if key != name}
    if n_rows:
        damaged[name] = FULL.weights[name][:n_rows].repeat(2, *[1] * (FULL.weights[name].dim() - 1))
    model = GPT(FULL.tokenizer.vocab_size, **SIZES)
    with pytest.raises(ValueError, match=f"weights holds another model: it (has|lacks) the tensor {name}"):
        replace(FULL, weights=damaged).check(model)
    initial_weights.check_weights(FULL, GPT(FULL.tokenizer.vocab_size, **SIZES | {"block_size": 4}), CutGPT2([]))
    with pytest.raises(ValueError, match="another tokenizer"):
        initial_weights.check_weights(FULL, model, tokenizers.byte_level())


def test_sizes_that_are_not_set_are_those_of_the_weights() -> None:
    left = {**dict.fromkeys(SIZES), "dropout": 0.1, "embedding_std": 0.1}
    assert initial_weights.missing_sizes(left, SIZES) == SIZES
    assert initial_weights.missing_sizes({**left, "block_size": 4}, SIZES).keys() == SIZES.keys() - {"block_size"}
    assert initial_weights.missing_sizes({"n_layer": 1}, SIZES).keys() == SIZES.keys() - {"n_layer"}
    unnamed = {key: SIZES[key] for key in ("n_layer", "n_head", "n_embd", "block_size")}  # others have their defaults
    assert initial_weights.missing_sizes({**SIZES, "bias": None}, unnamed) == {"bias": False}
    assert initial_weights.missing_sizes(unnamed, unnamed) == {}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("n_layer", 2, "model.n_layer is 2, .* init_from=x have 1: set model.n_layer=1, or leave it"),
        ("bias", False, "model.bias is false, .* have true: set model.bias=true"),
        ("activation", "gelu", "model.activation is gelu, .* have gelu_tanh"),
        ("block_size", 9, "model.block_size is 9, .* have 8: set model.block_size=8"),
        ("block_size", "many", "model.block_size is many"),
    ],
)
def test_sizes_that_contradict(key: str, value: object, message: str) -> None:
    initial_weights.check_sizes({**SIZES, "block_size": 7, "dropout": 0.5}, SIZES, "init_from=x")
    with pytest.raises(ValueError, match=message):
        initial_weights.check_sizes({**SIZES, key: value}, SIZES, "init_from=x")


CHOSEN = [
    ["init_from=gpt2"],
    ["-m", "init_from=a,b", "optimizer.lr=1e-3,1e-2"],
    ["init_from='a, b'", "model.n_layer=2", "--config-dir", "mine"],
    ["++init_from=/a/b c.pt", "--cfg", "job"],
    ["init_from=null", "init_from=a"],
]
NOT_CHOSEN = [
    ["init_from=null"],
    ["init_from="],
    ["init_from=a", "model=tiny"],
    ["-m", "init_from=a", "model=tiny,gpt2"],
    ["init_from=a", "experiment=mine"],
    ["init_from=a", "model._target_=mine.Model"],
    ["-m", "init_from=null,a"],
    ["init_from=(a"],
    [],
]


@pytest.mark.parametrize("arguments", [*CHOSEN, *NOT_CHOSEN])
def test_weights_choose_the_model(arguments: list[str]) -> None:
    added = ["model=pretrained"] if arguments in CHOSEN else []
    assert command_line.prepared(arguments) == [*arguments, *added]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A folder with a recorded run, and its best.pt."""
    folder = tmp_path_factory.mktemp("trained")
    command(*SMALL, "samples.count=0", cwd=folder, check=True)
    (run,) = runs(folder)
    best = Path(run.info.artifact_uri.removeprefix("file://")) / "checkpoint/best.pt"
    return SimpleNamespace(folder=folder, best=best, run=run)


def test_a_run_id_is_enough(trained: SimpleNamespace) -> None:
    """The sizes come from the weights, and are recorded; the command that is recorded trains the same again."""
    result = command(*DATA, *STILL, f"init_from={trained.run.info.run_id}", cwd=trained.folder, check=True)
    assert printed_perplexity(result) == pytest.approx(trained.run.data.metrics["best/val_perplexity"], rel=1e-4)
    run = next(run for run in runs(trained.folder) if run.info.run_id != trained.run.info.run_id)
    sizes = {"n_layer": "1", "n_embd": "16", "n_head": "1", "block_size": "64", "bias": "False", "activation": "gelu"}
    assert {key: run.data.params[f"model.{key}"] for key in sizes} == sizes
    assert run.data.tags["command"].endswith(f"init_from={trained.run.info.run_id} model=pretrained")
    assert run.data.params["init_from"] == trained.run.info.run_id
    assert run.data.tags["parent"]


def test_the_same_weights_under_another_name_are_the_same_trial(trained: SimpleNamespace, tmp_path: Path) -> None:
    saved = checkpoint.load(trained.best)
    changed = saved | {"model": {**saved["model"], "final_norm.weight": torch.zeros(16)}}
    shutil.copy(trained.best, tmp_path / "copy.pt")
    checkpoint.save(tmp_path / "changed.pt", changed)
    hashes = []
    for name in (trained.best, tmp_path / "copy.pt", tmp_path / "changed.pt"):
        cfg, found = start.find(compose(["model=pretrained", f"init_from={name}"]), Store(), "c")
        hashes.append(identity.config_hash(cfg, parent=found.parent))
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_search_leaves_the_depth_to_the_weights(trained: SimpleNamespace) -> None:
    search = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "hydra.sweeper.enqueue=[]"]
    result = command(*search, *DATA, "score_test=false", f"init_from={trained.best}", cwd=trained.folder, check=True)
    assert "n_layer" not in result.stdout + result.stderr


def test_sizes_of_a_state_to_resume(tmp_path: Path) -> None:
    """The weights from which the run started are not needed any more."""
    typed = ["model=pretrained", "model.block_size=4", "init_from=gone", "train.max_steps=9"]
    trained = config.replaced(compose(typed), "model", SIZES | {"block_size": 4})
    saved = STATE | {"settings": identity.relevant_settings(trained), "architecture": config.arguments(trained.model)}
    state = tmp_path / "last.pt"
    saved |= {"config_hash": identity.config_hash(trained, parent="p"), "parent": "p", "code": "c"}
    checkpoint.save(state, saved)
    cfg, found = start.find(compose([*typed, f"resume={state}"]), Store(), "c")
    assert cfg.model == trained.model
    assert found == Start(state=state, parent="p", is_repeatable=False)


def test_a_state_of_a_version_that_had_fewer_arguments_of_the_model(tmp_path: Path) -> None:
    """An argument that the state does not name had its default."""
    settings = identity.relevant_settings(compose([]))
    del settings["model.activation"]
    saved = STATE | {"settings": settings, "architecture": {}, "config_hash": "", "code": "c"}
    checkpoint.save(tmp_path / "last.pt", saved)
    _, found = start.find(compose([f"resume={tmp_path}/last.pt"]), Store(), "c")
    assert found.state == tmp_path / "last.pt"
    with pytest.raises(ValueError, match=r"model\.activation was gelu in the run to resume and is now gelu_tanh"):
        start.find(compose([f"resume={tmp_path}/last.pt", "model.activation=gelu_tanh"]), Store(), "c")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["init_from={best}", "model.n_layer=3"], "model.n_layer is 3, and the weights of init_from={best} have 1"),
        (["init_from={best}", "model=tiny"], "model.n_layer is 2, "),
        (["init_from={best}", *BYTES], "was trained with another tokenizer (CutGPT2)"),
        (["init_from={best}", "data.source.seed=9"], "was trained on another text"),
        (["init_from="], "init_from=: must be a name that is not empty"),
        (["model=pretrained"], "model.n_layer=null is that of the weights of init_from=..., which is not set"),
        (["resume=."], "resume=. is a folder"),
    ],
)
def test_what_cannot_be_trained_is_one_line(arguments: list[str], message: str, trained: SimpleNamespace) -> None:
    n_runs = len(runs(trained.folder))
    typed = [argument.format(best=trained.best) for argument in arguments]
    result = command(*DATA, *typed, cwd=trained.folder)
    assert result.returncode == 2
    (line,) = (line for line in result.stderr.splitlines() if not line.startswith(("stories: ", "texts: ")))
    assert line.startswith("error: ")
    assert message.format(best=trained.best) in line
    assert len(runs(trained.folder)) == n_runs


def test_fine_tuning_lowers_the_nll(tmp_path: Path) -> None:
    """The preset, with a random GPT-2 in Hugging Face's format."""
    export(random_weights(GPT2(), n_layer=2, n_head=2, n_embd=16, block_size=64), tmp_path / "gpt2", "")
    small = ["init_from=gpt2", "model.block_size=48", "samples.count=0", "score_test=false", "train.log_every=1"]
    command("experiment=finetune_gpt2", *DATA, *small, "optimizer.lr=1e-2", cwd=tmp_path, check=True)
    (run,) = runs(tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    before = client.get_metric_history(run.info.run_id, "train/nll")[0].value  # of the first batch
    assert run.data.metrics["val/nll"] < before - 0.2
    sizes = [run.data.params[f"model.{key}"] for key in ("n_embd", "block_size", "dropout", "activation")]
    assert sizes == ["16", "48", "0.1", "gelu_tanh"]
    assert int(run.data.tags["vocabulary"]) < 2000
