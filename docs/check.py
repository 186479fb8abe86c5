"""Check that the documents are true where a program can tell: ``make docs``.

Every relative link and anchor resolves, every path, dotted name and error code of ours in code type exists,
every command in a shell block is one that this checkout understands (make targets, verbs and options of
`medveil`, tests, benchmarks, extras), every Python block compiles and its imports of ours resolve,
and no page stands alone. Nothing is fetched and no command is run.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = ("medveil", "ledger", "mpc", "connectors", "zkp", "privacy", "wire", "benchmarks")
FOLDERS = (*PACKAGES, "tests", "docs")
SHELL = {"sh", "bash", "console", "shell"}
ORDINARY = {"cd", "git", "ls", "export", "cp", "source"}
"""Commands of everyday use that say nothing about this checkout."""

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_HEADING = re.compile(r"^#+\s+(.+?)\s*$", re.MULTILINE)


def documents(root: Path) -> list[Path]:
    """Every Markdown file that is a document of the project."""
    return sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")])


def problems(root: Path) -> Iterator[str]:
    """Every claim of the documents below `root` that does not hold, as ``file: sentence``."""
    pages = documents(root)
    linked: set[Path] = set()
    for page in pages:
        text = page.read_text(encoding="utf-8")
        prose = _FENCE.sub("", text)
        name = page.relative_to(root)
        for match in _LINK.finditer(prose):
            target = match.group(1) or match.group(2)
            if "://" in target or target.startswith("mailto:"):
                continue
            path, _, anchor = target.partition("#")
            place = (page.parent / path).resolve() if path else page
            linked.add(place)
            if not place.exists():
                yield f"{name}: link to {target}, which is not there"
            elif anchor and place.suffix == ".md" and anchor not in anchors(place.read_text(encoding="utf-8")):
                yield f"{name}: link to {target}, which has no such heading"
        for match in _CODE.finditer(prose):
            yield from (f"{name}: {problem}" for problem in _check_code(root, match.group(1)))
        for match in _FENCE.finditer(text):
            language, block = match.group(1), match.group(2)
            if language in SHELL:
                for line in commands(block, prompted=language == "console"):
                    yield from (f"{name}: {problem}" for problem in check_command(root, line))
            elif language == "python":
                yield from (f"{name}: {problem}" for problem in _check_python(block))
    for page in pages:
        if page.parent != root and page.resolve() not in linked:
            yield f"{page.relative_to(root)}: no other document links to this page"


def anchors(text: str) -> set[str]:
    """The anchors that the headings of a Markdown text give."""
    found = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


def commands(block: str, *, prompted: bool) -> Iterator[str]:
    """The command lines of a shell block; in a console block only those after a ``$``."""
    for line in block.replace("\\\n", " ").splitlines():
        line = line.strip()
        if prompted and not line.startswith("$ "):
            continue
        line = line.removeprefix("$ ")
        if line and not line.startswith("#"):
            yield line


def check_command(root: Path, line: str) -> Iterator[str]:
    """What is wrong with one command line, if anything."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        yield f"command that no shell reads: {line}"
        return
    parts: list[list[str]] = [[]]
    for word in words:
        if word in {"&&", "||", ";", "|"}:
            parts.append([])
        else:
            parts[-1].append(word)
    for part in parts:
        while part and re.fullmatch(r"[A-Z_]+=.*", part[0]):
            part = part[1:]
        if part:
            yield from _check_words(root, part)


def _check_words(root: Path, words: list[str]) -> Iterator[str]:
    program, arguments = words[0].rsplit("/", 1)[-1], words[1:]
    if program == "make":
        for word in arguments:
            if "=" not in word and not word.startswith("-") and word not in make_targets(root):
                yield f"make {word}: no such target"
    elif program == "medveil":
        yield from _check_verb(arguments)
    elif program.startswith("python") and arguments[:1] == ["-m"]:
        yield from _check_module(root, arguments[1], arguments[2:])
    elif program.startswith("python") and arguments[:1]:
        yield from _check_path(root, arguments[0])
    elif program in {"run", "bash"}:
        yield from _check_path(root, (arguments or [words[0]])[0])
    elif program not in ORDINARY and program not in {"ruff", "mypy", "lint-imports"}:
        yield f"command {program}: neither ours nor an everyday one"


def _check_module(root: Path, module: str, arguments: list[str]) -> Iterator[str]:
    if module == "pytest":
        for word in arguments:
            if word.startswith("tests"):
                path, _, name = word.partition("::")
                yield from _check_path(root, path)
                if (
                    name
                    and (root / path).is_file()
                    and f"def {name.split('::')[-1].split('[')[0]}(" not in (root / path).read_text(encoding="utf-8")
                ):
                    yield f"{word}: no such test"
    elif module == "benchmarks":
        for word in arguments:
            if not word.startswith("-") and not (root / "benchmarks" / f"{word}.py").is_file():
                yield f"python -m benchmarks {word}: no such benchmark"
    elif module == "pip":
        for extra in re.findall(r"medveil\[([a-z,]+)\]", " ".join(arguments)):
            for name in extra.split(","):
                if name not in extras(root):
                    yield f"medveil[{name}]: no such extra"
    elif module != "venv":
        yield f"python -m {module}: not ours"


def _check_verb(arguments: list[str]) -> Iterator[str]:
    """Verbs and options of one call, down the tree."""
    command, said = medveil_tree(), "medveil"
    words = iter(arguments)
    for word in words:
        if word.startswith("-") and word != "-":
            name, _, value = word.partition("=")
            found = next((one for one in command.params if name in (*one.opts, *one.secondary_opts)), None)
            if found is None and name != "--help":
                yield f"{said} {name}: no such option"
            elif found is not None and not getattr(found, "is_flag", False) and not value:
                next(words, None)
        elif hasattr(command, "commands"):
            if word not in command.commands:
                yield f"{said} {word}: no such verb"
                return
            command, said = command.commands[word], f"{said} {word}"


def _check_code(root: Path, code: str) -> Iterator[str]:
    """Paths, dotted names and commands in code type."""
    if re.match(r"(make|medveil|python -m|\.venv/bin/\S+) [a-z]", code) and "..." not in code:
        yield from check_command(root, re.sub(r"\[[^\]]*\]$", "", code).strip())
    elif _is_path(code):
        yield from _check_path(root, code)
    elif re.fullmatch(r"[a-z_]+(\.\w+)+(\(\))?", code) and code.split(".")[0] in PACKAGES and _is_ours(root, code):
        yield from _check_name(code.removesuffix("()"))
    elif re.fullmatch(r"[a-z]+\.[a-z_]+", code) and code not in codes() and code.split(".")[0] in families():
        yield f"{code}: no error has this code"


def _is_path(code: str) -> bool:
    """Whether this is a path of ours. Domain separators (medveil/v1/...) look like one."""
    plain = re.fullmatch(r"\.?[\w.-]+(/[\w.-]+)*/?", code) is not None and "/" in code
    return plain and code.split("/")[0] in FOLDERS and not code.startswith("medveil/v1/")


def _is_ours(root: Path, code: str) -> bool:
    """Whether the second part is a module of ours: other dotted words, such as error codes, are none."""
    first, second = code.removesuffix("()").split(".")[:2]
    return (root / first / second).is_dir() or (root / first / f"{second}.py").is_file()


def _check_path(root: Path, path: str) -> Iterator[str]:
    if not (root / path).exists():
        yield f"{path} is not there"


def _check_name(name: str) -> Iterator[str]:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                yield f"{name}: there is no {part}"
                return
            found = getattr(found, part)
        return
    yield f"{name}: no such module"


def _check_python(block: str) -> Iterator[str]:
    try:
        tree = ast.parse(block)
    except SyntaxError:
        yield "a Python block does not compile"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            for alias in node.names:
                yield from _check_name(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in PACKAGES:
                    yield from _check_name(alias.name)


@cache
def make_targets(root: Path) -> frozenset[str]:
    """The targets of the Makefile."""
    text = (root / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


@cache
def extras(root: Path) -> frozenset[str]:
    """The optional dependency sets of the distribution."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return frozenset(project["optional-dependencies"])


@cache
def codes() -> frozenset[str]:
    """Every error code of the catalogues."""
    from wire import messages

    return frozenset(messages.catalogue("en"))


@cache
def families() -> frozenset[str]:
    """The first parts of all error codes."""
    return frozenset(code.split(".")[0] for code in codes())


@cache
def medveil_tree() -> Any:
    """The command line, as the library that reads it has it."""
    from typer.main import get_command

    from medveil.cli import app

    return get_command(app)


def main(root: Path) -> int:
    """Print every problem below `root`; 0 when there is none."""
    found = list(problems(root))
    for problem in found:
        print(problem)
    print(f"{len(documents(root))} documents, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    sys.exit(main(Path(__file__).resolve().parent.parent))
