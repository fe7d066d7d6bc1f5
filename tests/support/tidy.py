"""Scanners for the house rules that a program can check; each returns the faults it has found."""

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "transferd"

# A function fits a screen; a file has one noun.
FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 350

# A wait this long is a guess about how fast the machine is; tests wait for conditions instead.
TEST_SLEEP_S_MAX = 0.1

# What a decision about money must not reach for: a clock, chance, the machine or another task.
IMPURE_MODULES = frozenset(
    {"asyncio", "os", "random", "secrets", "socket", "subprocess", "threading", "time"}
)
CLOCK_CALLS = frozenset(
    f"datetime.{name}" for name in ("date.today", "datetime.now", "datetime.today")
) | {"datetime.datetime.utcnow"}
SKIPS = frozenset(
    f"{module}.{name}"
    for module, names in {
        "pytest": ("skip", "importorskip", "xfail"),
        "pytest.mark": ("skip", "skipif", "xfail"),
        "unittest": ("skip", "skipIf", "skipUnless", "SkipTest", "expectedFailure"),
    }.items()
    for name in names
)


@dataclass(frozen=True)
class Source:
    """One parsed Python file and the name under which others import it."""

    path: Path
    module: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=str(self.path))

    def at(self, line: int, what: str) -> str:
        return f"{self.path}:{line} {what}"


def sources(*folders: Path, root: Path = ROOT) -> list[Source]:
    found = []
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        relative = path.relative_to(root)
        parts = relative.parent.parts if path.stem == "__init__" else relative.with_suffix("").parts
        found.append(Source(relative, ".".join(parts), path.read_text(encoding="utf-8")))
    return found


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every import as (line, dotted name); `from a import b` counts as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def references(tree: ast.Module) -> Iterator[tuple[ast.expr, str]]:
    """Every name and attribute, spelled out: `sleep` from time is time.sleep."""
    origins: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            origins |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            origins |= {
                alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names
            }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            first, dot, rest = ast.unparse(node).partition(".")
            yield node, origins.get(first, first) + dot + rest


def is_part_of(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def driver_imports(source: Source) -> list[str]:
    if any(
        is_part_of(source.module, home)
        for home in ("transferd.ledger.store", "transferd.ledger.migrate")
    ):
        return []
    return [
        source.at(line, name) for line, name in imports(source.tree) if is_part_of(name, "asyncpg")
    ]


def back_doors(source: Source) -> list[str]:
    names = [(node.lineno, name) for node, name in references(source.tree)]
    return [
        source.at(line, name)
        for line, name in [*imports(source.tree), *names]
        if name.endswith("TYPE_CHECKING")
    ]


def too_long(source: Source) -> list[str]:
    found = []
    lines = source.text.count("\n")
    if lines > FILE_LINES_MAX:
        found.append(source.at(1, f"has {lines} lines, {FILE_LINES_MAX} are allowed"))
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                what = f"{node.name} has {lines} lines, {FUNCTION_LINES_MAX} are allowed"
                found.append(source.at(node.lineno, what))
    return found


def impurities(source: Source) -> list[str]:
    found = []
    for line, name in imports(source.tree):
        top = name.split(".")[0]
        if top in IMPURE_MODULES or not (
            is_part_of(name, "transferd.domain") or top in sys.stdlib_module_names
        ):
            found.append(source.at(line, f"imports {name}"))
    found += [
        source.at(node.lineno, f"uses {name}")
        for node, name in references(source.tree)
        if name in CLOCK_CALLS
    ]
    found += [
        source.at(node.lineno, "is asynchronous")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.AsyncFunctionDef | ast.Await)
    ]
    return found


def skips_and_sleeps(source: Source) -> list[str]:
    named = list(references(source.tree))
    names = {id(node): name for node, name in named}
    found = [
        source.at(node.lineno, name)
        for node, name in named
        if name in SKIPS or name == "time.sleep"
    ]
    for call in ast.walk(source.tree):
        if isinstance(call, ast.Call) and names.get(id(call.func)) == "asyncio.sleep":
            wait = next(iter([*call.args, *(each.value for each in call.keywords)]), None)
            if (
                isinstance(wait, ast.Constant)
                and isinstance(wait.value, int | float)
                and wait.value >= TEST_SLEEP_S_MAX
            ):
                found.append(source.at(call.lineno, f"sleeps {wait.value} s"))
    return found


def make_targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.MULTILINE))


def shell_commands(markdown: str) -> Iterator[list[str]]:
    """The commands in the fenced blocks that are for a shell, as lists of words."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL):
        if language not in {"sh", "bash", "shell", "console"}:
            continue
        lines = block.replace("\\\n", " ").splitlines()
        # Where some lines have a prompt, the others are what the commands print.
        prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        for line in prompted or lines:
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            try:
                words = list(lexer)
            except ValueError:  # a quote that stays open: output or a body of JSON, not a command
                continue
            command: list[str] = []
            for word in [*words, ";"]:
                if set(word) <= set(";&|()<>"):
                    yield command
                    command = []
                elif command or not re.match(r"\w+=", word):  # settings may stand before a command
                    command.append(word)


def unknown_options(group: click.Command, words: list[str]) -> str | None:
    """What in the words after `transferd` the command tree does not know, if anything."""
    command, rest = group, list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("-") and word != "-":
            name, equals, _ = word.partition("=")
            option = next((each for each in command.params if name in each.opts), None)
            if option is None and name != "--help":
                return name
            if isinstance(option, click.Option) and not (equals or option.is_flag or option.count):
                rest[:1] = []
        elif isinstance(command, click.Group):
            if word not in command.commands:
                return word
            command = command.commands[word]
    return None


def untrue_commands(markdown: str, targets: set[str], group: click.Command) -> list[str]:
    found = []
    for command in shell_commands(markdown):
        for position, word in enumerate(command):
            rest = command[position + 1 :]
            if word == "make" and position == 0:
                promised = [each for each in rest if re.fullmatch(r"[a-z][a-z-]*", each)]
                found += [f"make {each}" for each in promised if each not in targets]
            elif word == "transferd" or word.endswith("/bin/transferd"):
                unknown = unknown_options(group, rest)
                found += [f"{' '.join(command)}: {unknown}"] if unknown else []
                break
    return found


def pin_faults(constraints: str, requirements: list[str]) -> list[str]:
    pins, faults = {}, []
    for line in constraints.splitlines():
        if not line or line.startswith("#"):
            continue
        pin = re.fullmatch(r"([a-z0-9][a-z0-9-]*)==([\w.!+]+)(?: ; [\w'\" .<>=!()]+)?", line)
        if pin is None:
            faults.append(f"not a plain pin: {line}")
        else:
            pins[pin[1]] = pin[2]
    for requirement in map(Requirement, requirements):
        pinned = pins.get(canonicalize_name(requirement.name))
        if pinned is None or not requirement.specifier.contains(pinned):
            faults.append(f"{requirement} is pinned to {pinned}")
    return faults


def query_faults(queries: str, used: set[str]) -> list[str]:
    faults = []
    head, *blocks = re.split(r"^-- name:", queries, flags=re.MULTILINE)
    if re.search(r"^\s*[^-\s]", head, re.MULTILINE):
        faults.append("SQL before the first name")
    for block in blocks:
        name, *lines = block.strip().splitlines()
        first = lines[0].strip() if lines else ""
        if not first.startswith("--") or not first.strip("- "):
            faults.append(f"{name} does not say why it is there")
        if not any(line.strip() and not line.strip().startswith("--") for line in lines):
            faults.append(f"{name} has no SQL")
        if not re.fullmatch(r"\w+", name):
            faults.append(f"{name} is not a name")
        elif name not in used:
            faults.append(f"{name} is used nowhere")
    names = [block.strip().split("\n")[0] for block in blocks]
    faults += [f"{name} is there twice" for name in sorted(set(names)) if names.count(name) > 1]
    return faults


def words_used(source: Source) -> set[str]:
    """Every attribute, name and text in the code, whichever of them a query is called by."""
    used = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute):
            used.add(node.attr)
        elif isinstance(node, ast.Name):
            used.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            used.add(node.value)
    return used


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [script, "--no-logo", "--no-cache", "--config", ROOT / "pyproject.toml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
