"""Names of files that come from the configuration."""

import pytest

from nanosq.errors import InputError
from nanosq.filesystem import LONGEST_NAME, SHORTENED, checked_name, file_name


@pytest.mark.parametrize("name", ["a", "squentropy 2", "v1.0", "...", "größe", "\N{SLIGHTLY SMILING FACE}", "a" * 255])
def test_a_name_that_stays_in_its_folder(name: str) -> None:
    assert checked_name("study", name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../up",
        "/root",
        "a/b",
        "a\\b",
        "a\0b",
        "a\nb",
        "a\x7f",
        "a\u2028b",
        "\ud800",
        "a" * 256,
        "ö" * 128,
    ],
)
def test_a_name_that_leaves_its_folder(name: str) -> None:
    with pytest.raises(InputError, match=r"^study=") as error:
        checked_name("study", name)
    assert str(error.value).isprintable()


def test_the_longest_name_can_be_written(tmp_path) -> None:
    (tmp_path / checked_name("study", "a" * LONGEST_NAME)).touch()


def test_a_text_as_a_file_name_is_safe_and_short() -> None:
    texts = ["a b/c", "..", f"{'é' * 200} 1", f"{'é' * 200} 2"]
    names = [file_name(text) for text in texts]
    assert names[:2] == ["a_b_c", "_"]
    assert len({*names}) == len(texts)
    assert all(len(name.encode()) <= SHORTENED for name in names)
