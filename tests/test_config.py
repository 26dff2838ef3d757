"""Configuration: every file in conf composes and fits its target; what is wrong is said in one line."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from nanosq import config, identity, initial_weights, schema, sweeps
from tests.commandline import ROOT

CONF = Path(__file__).parents[1] / "conf"
COMPONENTS = ("model", "loss", "optimizer", "schedule", "tracking")
RUNTIME = {"schedule": {"max_steps": 10, "warmup": 1, "min_lr_factor": 0.1}}
OF_WEIGHTS = {"n_layer": 1, "n_head": 1, "n_embd": 2, "block_size": 8, "bias": True, "activation": "gelu_tanh"}
OPTIONS = [(group, path.stem) for group in (*COMPONENTS, "data") for path in sorted((CONF / group).glob("*.yaml"))]


schema.register()
sweeps.register()


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF)):
        return compose("config", overrides=list(overrides))


def with_weights(cfg: DictConfig) -> DictConfig:
    """The configuration with the sizes of some weights in place of null."""
    sizes = initial_weights.missing_sizes(cfg.model, OF_WEIGHTS)
    return config.replaced(cfg, "model", sizes) if cfg.model.n_layer is None else cfg


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_component_fits_its_target(group: str, option: str) -> None:
    cfg = with_weights(composed(f"{group}={option}", *(["data.source.train=x.txt"] if option == "text" else [])))
    nodes = [cfg.data.source, cfg.data.tokenizer] if group == "data" else [cfg[group]]
    for node in nodes:
        config.check_component(group, node, **RUNTIME.get(group, {}))


@pytest.mark.parametrize("option", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_every_experiment_composes(option: str) -> None:
    cfg = with_weights(composed(f"experiment={option}"))
    schema.check(cfg)
    for group in COMPONENTS:
        config.check_component(group, cfg[group], **RUNTIME.get(group, {}))


def component(**arguments: object) -> DictConfig:
    return OmegaConf.create({"loss": {"_target_": "nanosq.losses.squentropy", "_partial_": True, **arguments}}).loss


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"wieght": 1.0}, "loss.wieght: losses.squentropy has no argument 'wieght'; did you mean 'weight'?"),
        ({"alpha": 1.0}, "loss.alpha: losses.squentropy has no argument 'alpha'; it has"),
        ({"weight": "much"}, "loss.weight: input should be a valid number, not 'much'"),
        ({"weight": True}, "loss.weight: input should be a valid number, not True"),
        ({"weight": "???"}, "loss.weight is missing"),
        ({"_target_": "nanosq.losses.squentropi"}, "loss._target_: cannot import 'nanosq.losses.squentropi'"),
    ],
)
def test_a_component_that_does_not_fit(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=r"^loss") as caught:
        config.build("loss", component(**arguments))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_argument_is_named() -> None:
    node = OmegaConf.create({"model": {"_target_": "nanosq.model.GPT", "block_size": 8, "n_layer": 1, "n_head": 1}})
    with pytest.raises(ValueError, match=r"model\.n_embd is missing"):
        config.build("model", node.model, 11)


def test_build_passes_what_the_program_adds() -> None:
    import torch

    loss = config.build("loss", component(weight=2))
    assert loss(torch.zeros(1, 4), torch.tensor([0])).item() == pytest.approx(torch.tensor(4.0).log().item())


@pytest.mark.parametrize(
    "override",
    [
        *("train.max_steps=0", "train.batch_size=-1", "train.clip_norm=0", "train.warmup=1.5", "train.min_lr_factor=2"),
        *("train.eval_every=0", "train.eval_every=0.0", "train.eval_every=-0.1", "train.eval_every=1.0"),
    ],
)
def test_numbers_that_make_no_sense(override: str) -> None:
    with pytest.raises(ValueError, match=override.split("=")[0].replace(".", r"\.")):
        config.settings(composed(override).train)


def test_warmup_is_steps_or_a_fraction() -> None:
    assert config.settings(composed("train.max_steps=200", "train.warmup=0.1").train).warmup_steps == 20
    assert config.settings(composed("train.max_steps=200", "train.warmup=7").train).warmup_steps == 7


@pytest.mark.parametrize(
    ("max_steps", "eval_every", "steps"),
    [
        (1600, "400", [400, 800, 1200, 1600]),
        (1600, "0.25", [400, 800, 1200, 1600]),
        (50, "0.25", [13, 26, 39, 50]),
        (30, "0.1", [*range(3, 31, 3)]),
        (10, "1", [*range(1, 11)]),
        (10, "0.99", [10]),
        (2, "1e-9", [1, 2]),
    ],
)
def test_eval_every_is_steps_or_a_fraction(max_steps: int, eval_every: str, steps: list[int]) -> None:
    settings = config.settings(composed(f"train.max_steps={max_steps}", f"train.eval_every={eval_every}").train)
    evaluated = [step for step in range(1, max_steps) if settings.is_evaluated(step)] + [max_steps]
    assert evaluated == steps
    assert settings.n_evaluations == len(steps)


def test_hash_knows_what_matters() -> None:
    base = identity.config_hash(composed())
    same = ["device=cpu", "tracking=none", "cache_dir=elsewhere", "checkpoint_dir=x", "samples.count=9"]
    same += ["train.log_every=3", "train.checkpoint_every=null", "model.dropout=0"]
    for override in same:
        assert identity.config_hash(composed(override)) == base, override
    for override in ("seed=2", "optimizer.lr=1e-5", "model.n_layer=3", "loss=squentropy", "train.max_steps=7"):
        assert identity.config_hash(composed(override)) != base, override
    weights = composed("init_from=w.pt")  # a sweep knows their name, and a run their digest
    assert identity.config_hash(weights, parent="d") == identity.config_hash(composed("init_from=v.pt"), parent="d")
    assert identity.config_hash(weights, parent="d") != base
    assert len({identity.planned_hash(composed(*name)) for name in ([], ["init_from=w.pt"], ["init_from=v.pt"])}) == 3


def test_code_hash_covers_the_package_and_the_modules_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "my_loss.py": "from my_package.inner import FACTOR\ndef mine(logits, targets):\n    return logits[:, 0]\n",
        "my_package/__init__.py": "",
        "my_package/inner.py": "import torch\nfrom .constants import FACTOR\n",
        "my_package/constants.py": "FACTOR = 1.0\n",
        "unrelated.py": "",
    }
    (tmp_path / "my_package").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    def code(*overrides: str) -> str:
        identity._file_hash.cache_clear()
        return identity.code_hash(composed(*overrides))

    mine = "loss._target_=my_loss.mine"
    package, base = code(), code(mine)
    assert base.startswith(f"{package}+")
    assert base == code(mine, "seed=7")
    # Components of this package and of PyTorch belong to one program.
    assert {code(override) for override in ("loss=squentropy", "optimizer=adamw", "tracking=none")} == {package}
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}# an edit\n")
        assert (code(mine) == base) == (name == "unrelated.py"), name
        (tmp_path / name).write_text(text)
        assert code(mine) == base


def test_code_hash_is_the_same_in_every_checkout(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "nanosq", tmp_path / "nanosq")
    script = """
from nanosq import identity, installation
from omegaconf import OmegaConf
print(installation.PACKAGE, identity.code_hash(OmegaConf.create()))
"""
    lines = [
        subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True).stdout
        for folder in (ROOT, tmp_path)
    ]
    (here, first), (there, second) = map(str.split, lines)
    assert here != there
    assert first == second


def test_flatten() -> None:
    flat = config.flatten(composed("loss=squentropy"))
    assert flat["loss.weight"] == 1.0
    assert flat["optimizer.betas"] == [0.9, 0.95]
    assert not any(isinstance(value, dict) for value in flat.values())
