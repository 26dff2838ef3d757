"""Checkpoints, and folders in Hugging Face's format, that are damaged, incomplete, or of another model."""

import pickle
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bad_input import PASSWORD, Case

SERVER = f"tracking.uri=http://user:{PASSWORD}@127.0.0.1:9"
SIZES = {"n_layer": 1, "n_head": 1, "n_embd": 16, "block_size": 64}
FACTS = {"config_hash": "a1b2", "run_id": "0123456789abcdef" * 2, "splits": [], "code": "c0de", "text": "a1b2"}
WEIGHTS = "model.safetensors"


OWN = """
import torch

class Model(torch.nn.Module):
    flops_per_token = 1.0

    def __init__(self, vocab_size, *, block_size):
        super().__init__()
        self.block_size = block_size
        self.embedding = torch.nn.Embedding(vocab_size, 4)

    @property
    def head_weight(self):
        return self.embedding.weight

    def forward(self, tokens_BT):
        return self.embedding(tokens_BT)
"""


class Bomb:
    """A pickle of this object creates a file when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


@cache
def state() -> dict[str, Any]:
    """Return the content of a last.pt: the state of a small model that has taken seven steps."""
    from nanosq.data import tokenizers
    from nanosq.model import GPT
    from nanosq.train import Progress

    tokenizer = tokenizers.byte_level()
    return {
        **FACTS,
        "settings": {"model._target_": "nanosq.model.GPT"},
        "architecture": SIZES,
        "tokenizer": tokenizer.state(),
        "model": GPT(tokenizer.vocab_size, **SIZES).state_dict(),  # type: ignore[arg-type]
        **{"optimizer": {}, "scaler": {}, "progress": asdict(Progress(step=7))},
    }


@cache
def whole() -> bytes:
    """Return the bytes of that file."""
    from nanosq import checkpoint

    with TemporaryDirectory() as folder:
        path = Path(folder, "last.pt")
        checkpoint.save(path, state())
        return path.read_bytes()


def damaged(name: str, damage: Callable[[bytes], bytes], folder: Path) -> None:
    """Write a checkpoint that is damaged after it was written."""
    (folder / name).write_bytes(damage(whole()))


def changed(name: str, changes: Mapping[str, Any], folder: Path) -> None:
    """Write a checkpoint with other content. A value of None removes the key."""
    from nanosq import checkpoint

    content = {key: value for key, value in (state() | changes).items() if value is not None}
    checkpoint.save(folder / name, content)


def beside_own_model(folder: Path) -> None:
    """Write a checkpoint, and a model of the user that is another one."""
    damaged("last.pt", bytes, folder)
    (folder / "own.py").write_text(OWN)
    (folder / "conf/model").mkdir(parents=True)
    (folder / "conf/model/own.yaml").write_text("_target_: own.Model\nblock_size: 64\n")


def foreign(content: object, folder: Path) -> None:
    """Write a file of torch.save that is no checkpoint."""
    import torch

    torch.save(content, folder / "foreign.pt")


def flip(data: bytes, *places: int) -> bytes:
    """Change all bits of some bytes."""
    changed = bytearray(data)
    for place in places:
        changed[place] ^= 0xFF
    return bytes(changed)


def flip_at_random(data: bytes) -> bytes:
    """Change 64 bytes."""
    return flip(data, *random.Random(0).sample(range(len(data)), 64))


def exported(damage: Callable[[bytes], bytes], name: str, folder: Path) -> None:
    """Write a folder in Hugging Face's format, of which one file is damaged afterwards."""
    from nanosq import pretrained
    from nanosq.export import export
    from nanosq.tracking import Store

    damaged("best.pt", bytes, folder)
    export(pretrained.load(str(folder / "best.pt"), Store()), folder / "exported", "")
    (folder / "best.pt").unlink()
    file = folder / "exported" / name
    file.write_bytes(damage(file.read_bytes()))


def trials(content: bytes, folder: Path) -> None:
    """Write the table of the trials of a sweep."""
    (folder / "sweeps/grid").mkdir(parents=True)
    (folder / "sweeps/grid/trials.csv").write_bytes(content)


def cut(data: bytes, share: float = 0.5) -> bytes:
    """Return the beginning of a file."""
    return data[: int(len(data) * share)]


def bad(
    command: str, damage: Callable[[bytes], bytes], says: str = "is damaged, because its checksum is wrong"
) -> Case:
    """Return a case of a damaged file bad.pt."""
    return Case(command, f"bad.pt {says}", partial(damaged, "bad.pt", damage))


def other(command: str, says: str, **changes: Any) -> Case:
    """Return a case of a checkpoint other.pt with other content."""
    return Case(command, says, partial(changed, "other.pt", changes))


EVALUATE = "nanosq.evaluate bad.pt --data text.txt"
UNREADABLE = "is not a checkpoint of nanosq, or is damaged: name another one"
MISSING = "other.pt is not a whole checkpoint, because its"
REGISTER = "nanosq.register grid model"

CASES = [
    bad("run.py resume=bad.pt", lambda _: b"", UNREADABLE),
    bad("run.py resume=bad.pt", cut, UNREADABLE),
    bad(f"run.py resume=bad.pt {SERVER}", flip_at_random, ""),
    bad("run.py resume=bad.pt", lambda data: data[:-1]),
    bad("run.py init_from=bad.pt model=pretrained", cut, UNREADABLE),
    bad(f"run.py init_from=bad.pt model=pretrained {SERVER}", lambda data: flip(data, len(data) // 2)),
    bad("run.py init_from=bad.pt model=pretrained", lambda data: data + data),
    bad("nanosq.generate bad.pt", partial(cut, share=0.99), UNREADABLE),
    bad("nanosq.generate bad.pt", flip_at_random, ""),
    bad("nanosq.generate bad.pt", lambda data: flip(data, len(data) - 1)),
    bad("nanosq.generate bad.pt", lambda data: data[:9000] + bytes(4096) + data[13096:]),
    bad(EVALUATE, lambda data: flip(data, 0), f"{UNREADABLE}\n"),
    bad(EVALUATE, lambda data: data[:-14]),
    bad("nanosq.export bad.pt out", lambda data: data[100:], UNREADABLE),
    bad("nanosq.export bad.pt out", lambda data: flip(data, *range(20_000, 20_064))),
    bad("nanosq.generate bad.pt", lambda _: pickle.dumps(Bomb()), UNREADABLE),
    Case("nanosq.generate foreign.pt", "foreign.pt is not a checkpoint of nanosq", partial(foreign, {"model": {}})),
    Case("run.py resume=foreign.pt", "foreign.pt is not a checkpoint of nanosq", partial(foreign, [1, 2])),
    Case("run.py init_from=foreign.pt", "foreign.pt is not a checkpoint of nanosq", partial(foreign, Bomb())),
    other("run.py resume=other.pt", "by another version of nanosq and cannot be read", format="nanosq-4"),
    other("nanosq.export other.pt out", "by another version of nanosq", format="nanosq-99"),
    other("run.py resume=other.pt", f"{MISSING} progress is missing", progress=None),
    other("run.py resume=other.pt", f"{MISSING} config_hash is missing", config_hash=None),
    other("run.py resume=other.pt", f"{MISSING} settings is missing", settings=None),
    other("run.py resume=other.pt", "holds only weights: init_from=other.pt starts from them", optimizer=None),
    other("run.py init_from=other.pt", f"{MISSING} model is missing", model=None),
    other("nanosq.generate other.pt", f"{MISSING} tokenizer is missing", tokenizer=None),
    other("nanosq.evaluate other.pt --data text.txt", f"{MISSING} architecture is missing", architecture=None),
    other("nanosq.export other.pt out", f"{MISSING} model is missing", model=[1.0]),
    other("nanosq.generate other.pt", "unexpected keyword argument 'n_layers'", architecture={**SIZES, "n_layers": 1}),
    other("nanosq.generate other.pt", "it lacks the tensor blocks.1.", architecture={**SIZES, "n_layer": 2}),
    other("run.py init_from=other.pt model=pretrained", "n_embd=16 is not div", architecture={**SIZES, "n_head": 3}),
    other("nanosq.export other.pt out", "this is not the state of a tokenizer", tokenizer={"kind": "Letters"}),
    other("nanosq.generate other.pt", "holds a model of the class own.RNN", settings={"model._target_": "own.RNN"}),
    other("run.py resume=other.pt train.max_steps=6", "other.pt is at step 7, and train.max_steps=6"),
    other("run.py init_from=other.pt model=pretrained", "was trained with another tokenizer (ByteLevel)"),
    other("run.py init_from=other.pt model=tiny", "model.n_layer is 2, and the weights of init_from=other.pt have 1"),
    Case("run.py --config-dir conf model=own init_from=last.pt", "last.pt holds another model", beside_own_model),
    Case("nanosq.generate exported", "exported: the weights are damaged", partial(exported, cut, WEIGHTS)),
    Case(
        "run.py init_from=exported model=pretrained",
        "exported: the weights are damaged",
        partial(exported, lambda data: flip(data, 10), WEIGHTS),
    ),
    Case(
        "nanosq.evaluate exported --data text.txt",
        "exported: the weights are damaged",
        partial(exported, lambda data: flip(data, 7), WEIGHTS),
    ),
    Case(
        "nanosq.generate exported/model.safetensors",
        "exported/model.safetensors is a file of a model: give its folder, 'exported'",
        partial(exported, bytes, WEIGHTS),
    ),
    Case(
        "run.py init_from=exported/..",
        "exported/.. has no config.json: give the id of",
        partial(exported, bytes, WEIGHTS),
    ),
    Case("nanosq.export gpt2 out", "or a model of its hub such as openai-community/gpt2"),
    Case("nanosq.export exported out", "config.json is not JSON", partial(exported, cut, "config.json")),
    Case(
        "nanosq.generate exported",
        "this tokenizer.json cannot be read",
        partial(exported, partial(cut, share=0.9), "tokenizer.json"),
    ),
    Case(REGISTER, "trials.csv is damaged", partial(trials, b"")),
    Case(REGISTER, "trials.csv is damaged", partial(trials, b"trial,sta")),
    Case(REGISTER, "trials.csv is damaged", partial(trials, b"trial,state\n0,finished\n")),
    Case(REGISTER, "trials.csv is damaged", partial(trials, b"trial,state,perplexity,runs\n0,finished\xff\xfe")),
    Case(REGISTER, "trials.csv is damaged", partial(trials, b"trial,state,val/perplexity,runs\n0,finished,3.x,ab\n")),
    Case(REGISTER, "trials.csv is damaged", partial(trials, b"trial,state,val/perplexity,runs\n0,finished,3\n")),
]
