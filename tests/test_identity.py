"""Tests of the identity of a trial, without Hydra."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from nanosq import identity, own_code


def composed(**settings: Any) -> Any:
    return OmegaConf.create({"resume": "auto", "init_from": None, "seed": 1, **settings})


def code(target: str) -> str:
    """Return the hash of the code of a component, whose files may have changed since the last call."""
    identity._file_hash.cache_clear()
    return identity.code_hash(composed(loss={"_target_": target}))


def test_settings_that_affect_the_result() -> None:
    without = ("device", "tracking.uri", "cache_dir", "samples.count", "seeds", "resume", "train.log_every")
    assert not any(map(identity.affects_result, without))
    assert all(map(identity.affects_result, ("seed", "train.max_steps", "train.log", "device_type", "model.device")))
    cfg = composed(model={"n_layer": 2, "bias": True, "name": "gpt"}, device="cpu", samples={"count": 3})
    settings = {"seed": 1.0, "init_from": None, "model.n_layer": 2.0, "model.bias": True, "model.name": "gpt"}
    assert identity.relevant_settings(cfg) == settings
    assert identity.relevant_settings(cfg)["model.bias"] is True


def test_equal_numbers_are_one_setting() -> None:
    base = identity.config_hash(composed(lr=0, bias=True))
    assert identity.config_hash(composed(lr=0.0, bias=True)) == base
    assert identity.config_hash(composed(lr=0, bias=1)) != base
    assert identity.config_hash(composed(bias=True, lr=0)) == base
    assert len(base) == 12
    assert int(base, 16)


def test_what_training_starts_from_is_its_digest_or_before_it_is_read_its_name() -> None:
    assert [identity.named_state(composed(resume=name)) for name in ("auto", "never", "a.pt")] == ["", "", "a.pt"]
    names: list[dict[str, str]] = [{}, {"resume": "a.pt"}, {"init_from": "b.pt"}]
    planned = [identity.planned_hash(composed(**name)) for name in names]
    assert planned == [identity.config_hash(composed(), parent=parent) for parent in ("", "a.pt", "b.pt")]
    both = composed(resume="a.pt", init_from="b.pt")
    assert identity.planned_hash(both) == planned[1]


def test_a_component_counts_where_it_is_named_and_where_it_is_defined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_losses").mkdir()
    files = {
        "my_facade.py": "from my_losses.one import mine\n",
        "my_losses/__init__.py": "",
        "my_losses/one.py": "from . import two\ndef mine(logits, targets): ...\n",
        "my_losses/two.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    base = code("my_facade.mine")
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}# an edit\n")
        assert code("my_facade.mine") != base, name
        (tmp_path / name).write_text(text)


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages"])
def test_packages_that_are_installed_elsewhere_do_not_count(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do those of the system in a virtual environment with --system-site-packages."""
    (tmp_path / folder).mkdir()
    library = tmp_path / folder / f"their_{folder[:4]}.py"
    library.write_text("")
    (tmp_path / f"my_{folder[:4]}.py").write_text(f"import {library.stem}\ndef mine(logits, targets): ...\n")
    for place in (tmp_path / folder, tmp_path):
        monkeypatch.syspath_prepend(place)
    base = code(f"my_{folder[:4]}.mine")
    assert "+" in base
    library.write_text("# another version\n")
    assert code(f"my_{folder[:4]}.mine") == base


def test_a_run_may_be_resumed_with_other_lengths_only() -> None:
    trained = {"train.max_steps": 10.0, "schedule.power": 1.0, "model.n_layer": 2.0, "loss.weight": 0.5, "score": True}
    now = {**trained, "train.max_steps": 20.0, "schedule.power": 2.0, "loss.weight": float("0.5")}
    identity.check_resumable(trained, now)
    message = r"^model\.n_layer was 2 in the run to resume and is now 3: set it to the old value$"
    with pytest.raises(ValueError, match=message):
        identity.check_resumable(trained, {**trained, "model.n_layer": 3.0})
    with pytest.raises(ValueError, match=r"loss\.weight was 0\.5 in the run to resume and is now None"):
        identity.check_resumable(trained, {key: value for key, value in trained.items() if key != "loss.weight"})
    with pytest.raises(ValueError, match=r"model\.new was None in the run to resume and is now True"):
        identity.check_resumable(trained, {**trained, "model.new": True})


def test_the_code_of_the_user_counts_with_all_that_it_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "first_loss.py": "import second_module, torch, own_package.inner\ndef mine(logits, targets): ...\n",
        "second_module.py": (
            "import importlib\nx = importlib.import_module('.other', 'own_package').x\n"
            "try:\n    from .words import w\nexcept ImportError:\n    w = 1\n"  # it may be in a package, too
        ),
        "own_package/__init__.py": "",
        "own_package/inner.py": "from .other import x\n",
        "own_package/other.py": "from .third import y\nx = 2\n",
        "own_package/third.py": "import importlib\ny = importlib.import_module('.fourth', __package__)\n",
        "own_package/fourth.py": "from importlib import import_module\nmodule = import_module('by_name', None)\n",
        "by_name.py": "y = 2\n",
        "unrelated.py": "import first_loss\n",
    }
    (tmp_path / "own_package").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    base = code("first_loss.mine")
    own = {path.relative_to(tmp_path).as_posix() for path in own_code.own_files(["first_loss"]).values()}
    assert own == {*files} - {"unrelated.py"}
    package, _, modules = base.partition("+")
    assert (len(package), len(modules)) == (12, 12)
    assert code("torch.nn.functional.cross_entropy") == package
    for name in sorted(own):
        before = (tmp_path / name).read_text()
        (tmp_path / name).write_text(f"{before}# an edit\n")
        assert code("first_loss.mine") != base, name
        (tmp_path / name).write_text(before)
    assert code("first_loss.mine") == base
    (tmp_path / "second_module.py").write_text("def broken(")  # nobody has to import it
    assert code("first_loss.mine") not in (base, package)
