"""Files that do not exist, cannot be read, or hold something else."""

from pathlib import Path

from tests.bad_input import Case


def short(folder: Path) -> None:
    """Write three texts that are each shorter than a window."""
    for split in ("train", "val", "test"):
        (folder / f"{split}.txt").write_text(f"A text for {split}.")


def conf(folder: Path) -> None:
    """Write options that cannot be composed."""
    (folder / "loss").mkdir()
    (folder / "loss" / "broken.yaml").write_text("_target_: [")
    (folder / "loss" / "text.yaml").write_text("only a text")
    (folder / "loss" / "empty.yaml").touch()
    (folder / "loss" / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (folder / "loss" / "folder.yaml").mkdir()


SPLITS = "data.source.train=train.txt data.source.val=val.txt data.source.test=test.txt"

CASES = [
    Case("run.py data=text data.source.train=nowhere.txt", "nowhere.txt"),
    Case("run.py data=text", "data.source.train is missing: set data.source.train=VALUE"),
    Case("run.py data=text data.source.train=empty.txt", "empty.txt"),
    Case("run.py data=text data.source.train=one.txt", "data.source"),
    Case("run.py resume=text.txt", "text.txt is not a checkpoint"),
    Case("run.py data.source.n_train=1 model.block_size=100000", "lower model.block_size"),
    Case(f"run.py data=text {SPLITS}", "lower model.block_size", short),
    Case("run.py --config-dir . loss=broken", 'broken.yaml", line 2', conf),
    Case("run.py --config-dir . loss=text", "loss._target_=null is no component", conf),
    Case("run.py --config-dir . loss=empty", "loss", conf),
    Case("run.py --config-dir . loss=folder", "loss/folder", conf),
    Case("run.py --config-dir . loss=binary", "not text in UTF-8", conf),
]
