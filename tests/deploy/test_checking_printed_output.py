"""The scripts that run examples and the README's commands find what differs."""

from pathlib import Path

import pytest

from scripts import readme_commands, run_examples
from scripts.expected_output import difference
from scripts.readme_commands import Command, commands_of


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("a\nb\n", "a\nb\n"),
        ("a  \nb", "\na\nb   \n\n"),
        ("took ... s", "took 1.5 s"),
        ("a\n...\nz", "a\nb\nc\nz"),
        ("a\n...\nz", "a\nz"),
        ("...\nz", "a\nz"),
        ("a\n...", "a\nb\nc"),
        ("a\n...", "a\n"),
        ("...", "anything\nat all"),
        ("(x) [y] *", "(x) [y] *"),
        ("", ""),
    ],
)
def test_what_was_expected(expected: str, printed: str) -> None:
    assert difference(expected, printed) is None


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("a", "b"),
        ("a", "a\nb"),
        ("a\nb", "a"),
        ("took ... s", "took 1.5 ms"),
        ("a ... c", "a\nb\nc"),
        ("a\n...\nz", "a\nb"),
        ("a\n...\nz", "b\nz"),
        ("a\n...", "b"),
        ("a.c", "abc"),
        ("", "x"),
    ],
)
def test_what_was_not_expected(expected: str, printed: str) -> None:
    assert difference(expected, printed)


README = """
# Title

```console run
$ echo one \\
> two
one two
$ true
```

```sh
rm -rf nothing-that-is-run
```

```sh run
test -f README.md
```
"""


def test_only_what_is_marked_is_run() -> None:
    assert list(commands_of(README)) == [
        Command(text="echo one \\\ntwo", expected="one two"),
        Command(text="true"),
        Command(text="test -f README.md\n"),
    ]


def test_the_readmes_commands_run_in_a_copy_with_the_environment_on_the_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```console run\n$ command -v python\n.../bin/python\n$ test -f Makefile && touch made\n"
        "$ ls made\nmade\n```\n",
        encoding="utf-8",
    )
    assert readme_commands.main([str(page)]) == 0, capsys.readouterr().out
    assert not (readme_commands.ROOT / "made").exists()


@pytest.mark.parametrize(
    ("session", "said"),
    [
        ("$ false\n", "it ended with 1"),
        ("$ echo two\none\n", "-one"),
        ("$ false | true\n", "it ended with 1"),
        ("no prompt\n", "no block is marked to be run"),
    ],
)
def test_a_command_that_goes_wrong_is_shown(
    session: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```console run\n{session}```\n", encoding="utf-8")
    assert readme_commands.main([str(page)]) == 1
    assert said in capsys.readouterr().out


def example(folder: Path, name: str, program: str) -> None:
    (folder / name).write_text(f'if __name__ == "__main__":\n    {program}\n', encoding="utf-8")


def test_examples_are_compared_with_the_file_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_examples, "EXAMPLES", tmp_path)
    example(tmp_path, "run.py", "print('one')")
    example(tmp_path, "other.py", "print('two')")
    (tmp_path / "module.py").write_text("NOT_RUN = 1 / 1\n")
    (tmp_path / "expected.txt").write_text("one\n")
    (tmp_path / "other.expected.txt").write_text("two\n")
    assert run_examples.main([]) == 0
    assert capsys.readouterr().out.count("✓") == 2


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("print('three')", "+three"),
        ("raise SystemExit('gone wrong')", "gone wrong"),
        ("pass", "there is no expected.txt beside it"),
    ],
)
def test_an_example_that_goes_wrong_is_shown(
    program: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run_examples, "EXAMPLES", tmp_path)
    example(tmp_path, "run.py", program)
    if program != "pass":
        (tmp_path / "expected.txt").write_text("one\n")
    assert run_examples.main([]) == 1
    assert said in capsys.readouterr().out


def test_a_folder_without_examples_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_examples, "EXAMPLES", tmp_path)
    assert run_examples.main([]) == 1
