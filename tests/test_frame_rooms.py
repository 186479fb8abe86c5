"""The house rules that a reader relies on: small files, plain names, true ``__all__``, nobody's addresses."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from wire.domains import registered

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("medveil", "ledger", "mpc", "connectors", "zkp", "privacy", "wire")
PYTHON = sorted(path for folder in (*PACKAGES, "benchmarks", "tests", "docs") for path in (ROOT / folder).rglob("*.py"))
ROOMS = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("__init__.py"))
TEXTS = sorted(
    path
    for pattern in ("*.py", "*.md", "*.toml", "*.txt", "*.j2", "*.json", "*.html", "Makefile", ".ci/run")
    for path in ROOT.glob(pattern if "/" in pattern else f"**/{pattern}")
    if path.relative_to(ROOT).parts[0] in (*PACKAGES, "benchmarks", "tests", "docs", ".ci") or path.parent == ROOT
)

LONGEST = 600
INSTALLED = ("demo", "plot", "scoring", "client", "gateway", "postgres", "hsm")
"""Extras that the tests run against."""
VAGUE = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc", "stuff", "tools"}
PUBLIC_HOSTS = {
    "www.apache.org",
    "www.w3.org",
    "keepachangelog.com",
    "semver.org",
    "c2sp.org",
    "www.rfc-editor.org",
    "terminology.hl7.org",
    "purl.obolibrary.org",
}
"""Hosts of licences, namespaces and standards that a text may name."""


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PYTHON, ids=_name)
def test_a_file_is_a_small_room(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("path", PYTHON, ids=_name)
def test_no_file_has_a_vague_name(path: Path) -> None:
    words = {
        word for part in path.relative_to(ROOT).with_suffix("").parts for word in re.split(r"[_\-.]", part.lower())
    }
    assert not words & VAGUE


@pytest.mark.parametrize("path", [path for path in PYTHON if path.is_relative_to(ROOT / "tests") is False], ids=_name)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", ROOMS, ids=_name)
def test_all_is_true(path: Path) -> None:
    """Every name of ``__all__`` is there, once; every public name taken from another module is in it."""
    module = importlib.import_module(".".join(path.parent.relative_to(ROOT).parts))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__" and _own(node)
        for alias in node.names
    }
    listed = getattr(module, "__all__", None)
    if listed is None:
        return
    assert len(listed) == len(set(listed))
    for name in listed:
        assert getattr(module, name) is not None
    public = {
        name for name in imported if not name.startswith("_") and not inspect.ismodule(getattr(module, name, None))
    }
    assert public <= set(listed)


def _own(node: ast.ImportFrom) -> bool:
    return node.level > 0 or (node.module or "").split(".")[0] in PACKAGES


@pytest.mark.parametrize("path", TEXTS, ids=_name)
def test_no_text_names_a_host_or_an_index(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    hosts = set(re.findall(r"\b[a-z]+://([A-Za-z0-9.-]+\.[A-Za-z]+)", text))
    examples = {host for host in hosts if host.endswith((".example", ".example.org"))}  # RFC 2606: nobody's
    assert hosts - examples <= PUBLIC_HOSTS
    if path.suffix in {".txt", ".toml"} or path.name in {"Makefile", "run"}:
        assert not re.search(
            r"--(extra-)?index-url|--find-links|trusted-host|@ [a-z]+:|/etc/|\b\d+\.\d+\.\d+\.\d+:\d", text
        )


def test_constraints_hold_versions_only() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names))
    for line in lines:
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*==[0-9][0-9A-Za-z.+!]*( ; .+)?", line), line


def test_every_declared_dependency_is_constrained_within_its_range() -> None:
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pinned = dict(
        line.split(" ;")[0].split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    extras = project["project"]["optional-dependencies"]
    lists = [project["project"]["dependencies"], *project["dependency-groups"].values()]
    for line in [line for some in (*lists, *(extras[name] for name in INSTALLED)) for line in some]:
        requirement = Requirement(line)
        if requirement.name == "medveil":
            continue
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), line


def test_every_core_dependency_is_imported_by_the_product() -> None:
    """A dependency that nothing uses is a risk for nothing (docs/adr/0002)."""
    import tomllib

    from packaging.requirements import Requirement

    names = {
        "py-arkworks-bls12381": "py_arkworks_bls12381",
        "argon2-cffi": "argon2",
        "pynacl": "nacl",
        "tzdata": None,
        "python-stdnum": "stdnum",
    }
    imported = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    imported.add(node.module.split(".")[0])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {names.get(name, name) for name in (Requirement(line).name for line in project["dependencies"])} - {None}
    assert declared <= imported
    foreign = imported - declared - set(PACKAGES) - set(sys.stdlib_module_names)
    service = {
        "aiohttp",
        "fastapi",
        "http_message_signatures",
        "http_sf",
        "httpcore",
        "httpx",
        "joserfc",
        "opentelemetry",
        "pkcs11",
        "prometheus_client",
        "pydantic",
        "pydantic_core",
        "pyotp",
        "starlette",
        "structlog",
        "uvicorn",
        "uvloop",
        "yarl",
        "zxcvbn",
    }
    assert foreign == {"phe", "gmpy2", "statsmodels", "matplotlib", "jinja2", "pandas"} | service, (
        "an import of an extra, or of nothing declared"
    )


def test_every_domain_separator_is_used_where_it_belongs() -> None:
    used = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if path != ROOT / "wire" / "domains.py":
                tree = ast.parse(path.read_text(encoding="utf-8"))
                used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
                used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert set(registered()) <= used


def test_no_separator_is_written_outside_the_registry() -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if path != ROOT / "wire" / "domains.py":
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                    if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
                        assert not node.value.startswith(b"medveil/"), f"{_name(path)}:{node.lineno}"


@pytest.mark.parametrize(
    ("statement", "light"),
    [
        ("import medveil", {"msgspec", "typer", "rich", "numpy", "pyarrow", "cryptography", "nacl"}),
        ("import medveil.cli", {"numpy", "pyarrow", "opendp", "pandas", "matplotlib", "statsmodels", "phe", "scipy"}),
        ("import medveil.cli", {"py_ecc", "py_arkworks_bls12381", "cryptography", "sqlite3", "asyncio"}),
    ],
)
def test_heavy_parts_are_imported_when_used(statement: str, light: set[str]) -> None:
    program = f"{statement}\nimport sys\nprint(' '.join(sorted({light!r} & set(sys.modules))))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == ""


def test_only_one_file_imports_phe_and_one_each_curve_library() -> None:
    """phe is GPLv3 (docs/adr/0003); curve libraries are behind zkp/groups.py."""
    where: dict[str, set[str]] = {"phe": set(), "py_ecc": set(), "py_arkworks_bls12381": set()}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                for name in names:
                    if name.split(".")[0] in where:
                        where[name.split(".")[0]].add(_name(path))
    assert where == {
        "phe": {"mpc/scoring.py"},
        "py_ecc": {"zkp/groups.py"},
        "py_arkworks_bls12381": {"zkp/groups.py"},
    }
