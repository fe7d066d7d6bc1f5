"""Shells complete commands and options with the lines of README.md in their start-up files."""

import os
import re

import click
import pytest
from click.testing import CliRunner

from tests.support.command import TRANSFERD, environment, ran
from tests.support.project import README
from transferd.cli import main

PATH = os.pathsep.join((str(TRANSFERD.parent), os.environ["PATH"]))
# The first line of the script for each shell.
FIRST_LINE = {
    "bash": "_transferd_completion() {",
    "zsh": "#compdef transferd",
    "fish": "function _transferd_completion;",
}


def line_for(shell: str) -> str:
    """The line of README.md for the shell."""
    [line] = re.findall(rf"^.*_TRANSFERD_COMPLETE={shell}_source.*$", README.read_text(), re.M)
    return str(line)


@pytest.mark.parametrize("shell", FIRST_LINE)
def test_each_shell_gets_a_script_and_the_words_to_choose_from(shell: str) -> None:
    [asked] = re.findall(r"(\w+)=(\w+)_source transferd", line_for(shell))
    assert asked == ("_TRANSFERD_COMPLETE", shell)
    typed = {"COMP_WORDS": "transferd ", "COMP_CWORD": "" if shell == "fish" else "1"}
    script, words = (
        CliRunner().invoke(
            main, prog_name="transferd", env=typed | {"_TRANSFERD_COMPLETE": f"{shell}_{kind}"}
        )
        for kind in ("source", "complete")
    )
    assert (script.exit_code, words.exit_code) == (0, 0)
    assert script.output.strip().startswith(FIRST_LINE[shell])
    for name in main.list_commands(click.Context(main)):
        assert re.search(rf"\b{name}\b", words.output), words.output


async def test_bash_completes_commands_and_options() -> None:
    script = f"""
    {line_for("bash")}
    complete -p transferd
    for typed in 'transferd de' 'transferd dev --po'; do
        COMPREPLY=()
        COMP_WORDS=($typed)
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _transferd_completion transferd
        printf '%s ' "${{COMPREPLY[@]}}"
        echo
    done
    """
    code, output = await ran("bash", "--norc", "-c", script, **environment({"PATH": PATH}))
    assert code == 0, output
    registered, commands, options = output.splitlines()
    assert registered.startswith("complete ")
    assert set(commands.split()) == {"dev", "dead-letters"}
    assert options.split() == ["--port"]
