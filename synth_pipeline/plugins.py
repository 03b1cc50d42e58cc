"""Plug-ins by file name: a file in a plug-in package is a plug-in of that name.

Listing names imports none of them, so `synth-pipeline generators` does not pay for torch. A plug-in package states
its contract in `__init__` as `CONTRACT` (the base class) and, where some files are shared machinery, `MACHINERY`
(their names).
"""

import ast
import importlib
import inspect
import pkgutil
import re
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from synth_pipeline.errors import InputError, UnknownNameError


def names(package: ModuleType) -> list[str]:
    """Return the sorted names of the plug-ins in a package, importing none of them."""
    machinery: frozenset[str] = getattr(package, "MACHINERY", frozenset())
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in found if name not in machinery and not name.startswith("_"))


def load(package: ModuleType, name: str) -> type[Any]:
    """Import one plug-in and return the one class of the package's contract that its file defines.

    Raises `UnknownNameError` for a name without a file, `TypeError` for a file with no such class or with several.
    """
    require(package, name)
    module = importlib.import_module(f"{package.__name__}.{name}")
    contract: type = package.CONTRACT
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__ and issubclass(value, contract)
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} must define exactly one {contract.__name__}, not {len(found)}")
    return found[0]


def require(package: ModuleType, name: str) -> None:
    """Raise `UnknownNameError` for a name without a file."""
    known = names(package)
    if name not in known:
        raise UnknownNameError(package.__name__.rpartition(".")[2].removesuffix("s"), name, known)


def headline(package: ModuleType, name: str) -> str:
    """Return the first line of a plug-in's docstring, read without importing the plug-in."""
    source = Path(package.__path__[0], f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0].rstrip(".")


def files_of(package: ModuleType, name: str) -> list[str]:
    """Return the names of the files that a plug-in's code is in: its own, its contract's, and what they import."""
    found, waiting = set[str](), {name, "__init__"}
    while waiting:
        found |= waiting
        waiting = set().union(*(_imports(package, each) for each in waiting)) - found
    return sorted(found)


@cache
def _imports(package: ModuleType, name: str) -> frozenset[str]:
    """Files beside a file that it imports, read off its text: to parse forty files would take a quarter of a second."""
    folder = Path(package.__path__[0])
    source = folder.joinpath(f"{name}.py").read_text(encoding="utf-8")
    lines = re.findall(rf"^\s*from {package.__name__}(?:\.(\w+))? import (\([^)]*\)|.*)", source, re.MULTILINE)
    words = set(re.findall(r"\w+", " ".join(word for line in lines for word in line)))
    return frozenset(word for word in words if (folder / f"{word}.py").exists())


def parameters_of(plugin: type[Any], settings: dict[str, Any]) -> Any:
    """Return a plug-in's `Parameters` made from plain values.

    Raises `InputError` for a name that they lack or a value that does not fit.
    """
    from pydantic import TypeAdapter, ValidationError

    known = [field.name for field in fields(plugin.Parameters)]
    if unknown := sorted(set(settings) - set(known)):
        name = plugin.__module__.rpartition(".")[2]
        raise InputError(f"{name} has no parameter {unknown[0]!r}: it has {', '.join(known) or 'none'}")
    try:
        return TypeAdapter(plugin.Parameters).validate_python(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"parameter {first['loc'][0]}={first['input']!r} does not fit: {first['msg']}") from None
