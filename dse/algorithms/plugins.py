"""Algorithms from outside: found through entry points of installed packages, or named on the command line.

Both are the user's own doing. A file that is handed in (a space, a grid, a profile) never names code to import: it
holds names of algorithms, and a profile holds everything that pricing and sweeping need.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from dse.algorithms.contract import Algorithm, Knob
from dse.errors import BadInput
from dse.profiles.schema import Form

GROUP = "dse.algorithms"
"""Entry-point group of installed packages."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@cache
def installed() -> tuple[dict[str, type[Algorithm]], dict[str, str]]:
    """Algorithms of installed packages by name, and what is wrong with those that cannot be used.

    One broken package must not take every command with it, so it is reported where its algorithm is asked for.
    """
    found: dict[str, type[Algorithm]] = {}
    broken: dict[str, str] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.name, p.value)):
        owner = point.dist.name if point.dist is not None else "?"
        where = f"package {owner}: entry point {point.name} = {point.value}"
        try:
            cls = check_class(point.load(), where)
            if cls.name in found and found[cls.name] is not cls:
                raise BadInput(f"{where}: another package has an algorithm {cls.name!r} too; remove one")
            found[cls.name] = cls
        except BadInput as error:
            broken[point.name] = str(error)
        except (Exception, SystemExit) as error:  # a stranger's code, which may raise anything
            broken[point.name] = f"{where}: cannot be loaded ({_said(error)})"
    return found, broken


def load_plugin(path: str) -> type[Algorithm]:
    """The algorithm at ``module:Class``; modules beside the user's working directory are found too.

    Raises:
        BadInput: not such a path, nothing there, or what is there is no algorithm.
    """
    where = f"--plugin {path}"
    if not _PATH.fullmatch(path):
        raise BadInput(f"{where}: must be module:Class, such as my_package.attention:Mine")
    module, _, attribute = path.partition(":")
    # An installed `dse` does not look into the working directory by itself; the user has named a module there.
    # It stays on the path so that worker processes find the module as well.
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise BadInput(f"{where}: cannot be imported ({_said(error)})") from None
        raise BadInput(f"{where}: no module {error.name!r} here or among the installed ones") from None
    except (Exception, SystemExit) as error:  # a stranger's code, which may raise anything
        raise BadInput(f"{where}: cannot be imported ({_said(error)})") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise BadInput(f"{where}: {module} has no {attribute!r}")
        found = getattr(found, part)
    return check_class(found, where)


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def check_class(cls: Any, where: str) -> type[Algorithm]:
    """`cls` if it keeps the contract as far as that shows without running it.

    Raises:
        BadInput: ``where: what is missing or wrong; what would be right``.
    """
    if not inspect.isclass(cls) or not issubclass(cls, Algorithm):
        raise BadInput(f"{where}: {cls!r} is no subclass of dse.algorithms.contract.Algorithm")
    for attribute in ("name", "summary", "source"):
        value = getattr(cls, attribute, None)
        if not isinstance(value, str) or not value:
            raise BadInput(f"{where}: {cls.__name__}.{attribute}: missing; must be text")
    if not _NAME.fullmatch(cls.name):
        raise BadInput(
            f"{where}: name {cls.name!r}; use small letters, digits and hyphens, such as my-attention"
        )
    knobs = getattr(cls, "knobs", None)
    if not isinstance(knobs, tuple) or not all(isinstance(knob, Knob) for knob in knobs):
        raise BadInput(f"{where}: {cls.__name__}.knobs: must be a tuple of dse.algorithms.contract.Knob")
    names = [knob.name for knob in knobs]
    if len(set(names)) < len(names):
        raise BadInput(f"{where}: {cls.__name__}.knobs: a name appears twice")
    if inspect.isabstract(cls):
        lacking = ", ".join(sorted(cls.__abstractmethods__))
        raise BadInput(f"{where}: {cls.__name__} does not implement {lacking}")
    wanted = "start" if cls.stateful else "attend"
    if getattr(cls, wanted) is getattr(Algorithm, wanted):
        state = "stateful" if cls.stateful else "not stateful"
        raise BadInput(f"{where}: {cls.__name__} is {state} and does not implement {wanted}()")
    try:
        form = cls({}, cls.name).form()
    except BadInput as error:
        raise BadInput(f"{where}: the defaults of its knobs are not valid: {error}") from None
    except Exception as error:  # a stranger's code, which may raise anything
        raise BadInput(f"{where}: form() fails at the defaults ({_said(error)})") from None
    if not isinstance(form, Form):
        raise BadInput(f"{where}: form() returns {form!r}; must be a dse.profiles.schema.Form")
    return cls
