"""A configuration file that is not what it looks like: refused in words, before it takes the machine's memory."""

import pytest

from tidegate.file.document import ConfigDocument, FileError, to_yaml

BOMB = "version: 1\na0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)

MERGES = "version: 1\na0: &a0 {x: 1, y: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
)
"""539 bytes, more or less: each line is nine times the one before."""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (MERGES, "its merges"),
        (BOMB, "aliases"),
        ("version: 1\na: &a {b: *a}\n", "aliases"),
        ("a: " + "[" * 600, "too deeply"),
        ('{"a": ' + "[" * 100_000, "too deeply"),
        ("version: 1\nx: !!python/object/apply:os.system ['id']\n", "is not YAML"),
    ],
    ids=["a bomb of merges", "a bomb", "itself", "deep YAML", "deep JSON", "code"],
)
def test_what_would_take_the_memory_or_the_stack_is_refused(text, why):
    with pytest.raises(FileError, match=why):
        ConfigDocument("file", text)


@pytest.mark.parametrize("value", ["0x" + "f" * 5_000, ".nan", ".inf", "!!binary aGk="])
def test_what_json_cannot_say_is_refused_in_words(value):
    with pytest.raises(FileError, match="says what JSON cannot"):
        ConfigDocument("file", f"version: 1\nx: {value}\n").as_json()


def test_merges_that_save_writing_are_read():
    text = "version: 1\na: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: [*b, *a], z: 3}\n"
    assert ConfigDocument("file", text).content["c"] == {"x": 1, "y": 2, "z": 3}


def test_aliases_that_save_writing_are_read():
    text = "version: 1\nplans:\n  a: &a {limits: {hourly: {limit: 10/h}}}\n  b: *a\n  c: {<<: *a, priority: 1}\n"
    plans = ConfigDocument("file", text).content["plans"]
    assert plans["a"] == plans["b"] == {"limits": {"hourly": {"limit": "10/h"}}}
    assert plans["c"]["priority"] == 1


def test_what_is_written_is_read_as_it_was():
    words = [
        ":a",
        "? a",
        "a\x85b",
        "- a",
        "a: b",
        "~",
        "1e3",
        "0x10",
        "2030-01-01",
        "\ufeff",
        "\u2028",
        "\U0001f600",
        " a ",
        "long, so that it would be folded: \x85" + " \x85 \xa0" * 40,
        "long, with several spaces" + "  where it would be folded" * 10,
    ]
    content = {"version": 1, "clients": {word: {"plan": "p", "external_id": word} for word in words}}
    assert ConfigDocument("file", to_yaml(content)).content == content
