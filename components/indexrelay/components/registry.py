"""Finds kinds by name, and checks them against their contract at each step that uses them.

A kind is installed under an entry point of the group ``indexrelay.kinds``, as those of this package
are, or named as ``module:Class``. Its parameters are a model, so that mistakes in a table are
reported in the same words wherever the kind comes from.

A kind may come from a user, so nothing that it gives is released or served unchecked: the class is
checked with the settings, what `build` returns before its files are stored, what `verify` yields
before it counts as passed, and what `load` gives before a reader serves it.
"""

import importlib
import inspect
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final, cast, get_origin, get_type_hints

from pydantic import ValidationError

from indexrelay.components.errors import ContractError, InvalidParametersError, KindNotFoundError
from indexrelay.components.kind import READ_FILES, Built, Job, Kind, KindParameters, Trial
from indexrelay.components.served import Served, takes_vector
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.errors import Mistake, mistakes_of, suggestion
from indexrelay.schemas.names import canonical_json, is_file_name
from indexrelay.schemas.settings import CollectionSettings, ComponentDefinition
from indexrelay.schemas.settings_file import where_was_looked
from indexrelay.schemas.versions import BlobRef, Check

GROUP: Final = "indexrelay.kinds"


@lru_cache(maxsize=256)
def kind_class(name: str) -> type[Kind[Any, Any]]:
    """The class of one kind. Found once in a process; safe to call from many threads.

    Raises:
        KindNotFoundError: nothing of that name is installed or importable, or it is no kind.
    """
    found = _imported(name) if ":" in name else _installed(name)
    if not (isinstance(found, type) and issubclass(found, Kind)):
        raise KindNotFoundError(name, f"{found!r} is not a class derived from Kind")
    return found


def kind_of(definition: ComponentDefinition) -> Kind[Any, Any]:
    """A kind with the definition's parameters, which are checked.

    Raises:
        KindNotFoundError: there is no such kind.
        InvalidParametersError: it does not take these parameters.
    """
    kind = kind_class(definition.kind)
    try:
        parameters = kind.Parameters.model_validate(definition.parameters)
    except ValidationError as error:
        found = mistakes_of(error, root="", model=kind.Parameters, plain=_is_ours(kind))
        raise InvalidParametersError(definition.kind, found) from error
    return kind(parameters)


def check_kind(
    name: str, definition: ComponentDefinition, components: Collection[str] = ()
) -> Iterator[Mistake]:
    """What is wrong with component ``name``: its kind, its inputs, its parameters.

    ``components`` are the names of all that are components; an input that is none is a collection.
    """
    root = f"components.{name}"
    try:
        kind = kind_class(definition.kind)
    except KindNotFoundError as error:
        yield Mistake(key=f"{root}.kind", value=definition.kind, right=error.reason, plain=True)
        return
    limit = kind.max_inputs
    if limit is not None and len(definition.inputs) > limit:
        right = f"{definition.kind} is made from at most {limit}"
        yield Mistake(key=f"{root}.from", value=list(definition.inputs), right=right, plain=True)
    for source in definition.inputs:
        if source in components and not kind.takes_components:
            right = f"{source} is a component; {definition.kind} is made from collections"
            yield Mistake(key=f"{root}.from", value=source, right=right, plain=True)
    wrong = list(class_mistakes(kind))
    for right in wrong:
        yield Mistake(key=f"{root}.kind", value=definition.kind, right=right, plain=True)
    if not wrong:
        yield from _parameter_mistakes(root, kind, definition)


def _parameter_mistakes(
    root: str, kind: type[Kind[Any, Any]], definition: ComponentDefinition
) -> Iterator[Mistake]:
    try:
        kind(kind.Parameters.model_validate(definition.parameters, context={READ_FILES: True}))
    except ValidationError as error:
        base = _base_without_parameters(kind)
        if base is not None:
            right = f"{kind.__name__} names no parameters: write {base}[PARAMETERS, SERVED]"
            yield Mistake(key=f"{root}.kind", value=definition.kind, right=right, plain=True)
        yield from mistakes_of(error, root=root, model=kind.Parameters, plain=_is_ours(kind))
    except Exception as error:  # noqa: BLE001 - the code of a user, its parameters as well
        right = f"{definition.kind} cannot be made with these keys: {describe_error(error)}"
        yield Mistake(key=f"{root}.kind", value=definition.kind, right=right, plain=True)


def _is_ours(kind: type[Kind[Any, Any]]) -> bool:
    """Whether it is known that no parameter is a secret."""
    return kind.__module__.partition(".")[0] == "indexrelay"


def _base_without_parameters(kind: type[Kind[Any, Any]]) -> str | None:
    """The generic class that ``kind`` derives from as it is; ``None``: it names its parameters."""
    declares = next(base for base in kind.__mro__ if "Parameters" in vars(base))
    return declares.__name__ if getattr(declares, "__parameters__", ()) else None


def _installed(name: str) -> Any:
    # Two distributions may name a kind alike; sorted, every process takes the same one.
    installed: dict[str, EntryPoint] = {
        point.name: point
        for point in sorted(entry_points(group=GROUP), key=lambda point: point.value, reverse=True)
    }
    if name not in installed:
        raise KindNotFoundError(
            name, f"no such kind{suggestion(name, installed)}; another is named module:Class"
        )
    try:
        return installed[name].load()
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        reason = f"{installed[name].value} does not load: {describe_error(error)}"
        raise KindNotFoundError(name, reason) from error


def _imported(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        reason = f"{module_name!r} cannot be imported: {describe_error(error)}"
        if isinstance(error, ModuleNotFoundError):
            reason += f" ({where_was_looked()})"
        raise KindNotFoundError(name, reason) from error
    try:
        return cast("object", getattr(module, attribute))
    except AttributeError:
        classes = (key for key, value in vars(module).items() if isinstance(value, type))
        raise KindNotFoundError(
            name, f"{module_name} has no {attribute!r}{suggestion(attribute, classes)}"
        ) from None


_METHODS: Mapping[str, tuple[str, ...]] = {
    "__init__": ("parameters",),
    "lacks": (),
    "trial": ("collections",),
    "build": ("job",),
    "verify": ("job", "built", "files"),
    "load": ("files",),
    "inspect": ("value",),
    "validate": ("files", "manifest", "asked"),
    "overlap": ("new", "before"),
    "reload": ("files", "previous"),
    "outdated": ("manifest",),
    "improvable": ("manifest",),
    "improves": ("built", "served"),
}
"""How each method is called, besides ``self``."""
_SEARCHES: Final = ("search", "search_by_id")
"""The methods of `VectorSearchable` and `TextSearchable`."""


def class_mistakes(kind: type[Kind[Any, Any]]) -> Iterator[str]:
    """What of the class breaks the contract, a sentence each."""
    missing = sorted(kind.__abstractmethods__)
    if missing:
        yield f"{kind.__name__} lacks {', '.join(missing)}"
    for name, arguments in _METHODS.items():
        if name not in missing:
            yield from _method_mistakes(kind, name, arguments)
    parameters: object = kind.Parameters
    if not (isinstance(parameters, type) and issubclass(parameters, KindParameters)):
        yield f"{kind.__name__}.Parameters is {parameters!r}, not derived from KindParameters"
    yield from _name_mistakes(kind)
    for flag in ("takes_components", "has_quick_versions"):
        yield from _flag_mistakes(kind, flag)
    limit: object = kind.max_inputs
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        yield f"{kind.__name__}.max_inputs is {limit!r}, not a number from 1, or None"
    if "load" not in missing:
        yield from _served_mistakes(kind)


def _name_mistakes(kind: type[Kind[Any, Any]]) -> Iterator[str]:
    """What is wrong with the attributes that hold names."""
    for attribute, types, right in (
        ("preload", tuple | list, "a tuple of modules' names"),
        ("sandboxed", frozenset | set, "a frozenset of files' names"),
        ("gate_parameters", frozenset | set, "a frozenset of parameters' names"),
    ):
        given: object = getattr(kind, attribute)
        if not isinstance(given, types) or not all(isinstance(each, str) for each in given):
            yield f"{kind.__name__}.{attribute} is {given!r}, not {right}"


def _flag_mistakes(kind: type[Kind[Any, Any]], name: str) -> Iterator[str]:
    found: object = getattr(kind, name)
    if not isinstance(found, bool):
        yield f"{kind.__name__}.{name} is {found!r}, not true or false"


def lacks_of(kind: Kind[Any, Any]) -> list[str]:
    """What ``kind.lacks`` gives; an error in it counts as something that is missing."""
    try:
        found: Any = kind.lacks()
        return [str(each) for each in found or ()]
    except Exception as error:  # noqa: BLE001 - the code of a user
        return [f"lacks() of its kind failed: {describe_error(error)}"]


def trial_of(kind: Kind[Any, Any], collections: Mapping[str, CollectionSettings]) -> Trial:
    """What ``kind.trial`` gives; an error in it means that the component cannot be built."""
    try:
        found: Any = kind.trial(collections)
    except Exception as error:  # noqa: BLE001 - the code of a user
        return Trial(wrong=(f"trying it out failed: {describe_error(error)}",))
    return found if isinstance(found, Trial) else Trial()


def checked_build(kind: Kind[Any, Any], job: Job) -> Built:
    """What ``kind.build(job)`` made, checked against the contract.

    Raises:
        ContractError: it is no `Built`, has no files, or names some that are not there.
        Exception: whatever the build raises.
    """
    built: Any = kind.build(job)
    if not isinstance(built, Built):
        raise ContractError(f"build returned {_kind_of(built)}, not a Built")
    files: Any = built.files
    if not isinstance(files, Mapping) or not files:
        raise ContractError(f"build returned no files: Built.files is {files!r:.100}")
    for label, file in files.items():
        _check_file(label, file, job)
    entries = _count("entries", built.entries)
    if not isinstance(built.counts, Mapping):
        raise ContractError(f"Built.counts are {_kind_of(built.counts)}, not a dict")
    counts = {str(what): _count(f"counts[{what!r}]", built.counts[what]) for what in built.counts}
    try:
        canonical_json(built.details)
    except (TypeError, ValueError, RecursionError) as error:
        raise ContractError(f"Built.details are not JSON: {error}") from error
    if not isinstance(built.details, dict):
        raise ContractError(f"Built.details are {_kind_of(built.details)}, not a dict")
    return replace(built, entries=entries, counts=counts, extends=bool(built.extends))


def checks_of(
    kind: Kind[Any, Any], job: Job, built: Built, files: Mapping[str, Path]
) -> Iterator[Check]:
    """What ``kind.verify`` yields; a failed check for nothing, for no `Check`, and for an error."""
    count = 0
    try:
        found: Any = kind.verify(job, built, files)
        if not isinstance(found, Iterable) or isinstance(found, str | bytes | Mapping):
            yield _failed(f"verify returned {_kind_of(found)}, not the checks that it made")
            return
        for check in found:
            count += 1
            if not isinstance(check, Check):
                yield _failed(f"verify yielded {_kind_of(check)}, not a Check")
                return
            if not isinstance(check.passed, bool):
                yield _failed(f"{check.name}.passed is {_kind_of(check.passed)}, not a bool")
                return
            yield check
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a gate raises, it has failed
        yield _failed(describe_error(error))
        return
    if not count:
        yield _failed(
            "verify returned no check, so nothing shows that what was built is right; "
            "yield a Check for everything that was looked at"
        )


def loads(kind: Kind[Any, Any], files: Mapping[str, Path]) -> Check | None:
    """Whether a reader can load and close it; ``None`` where that is known, or not known here.

    The gates of the installed kinds open what they check. A memory error is caused by the limit of
    the build, and says nothing about readers.
    """
    if type(kind).__module__.startswith("indexrelay.components."):
        return None
    try:
        served(kind, kind.load(files)).close()
    except MemoryError:
        return None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it would be every reader's error
        return Check(name="loads", passed=False, detail=describe_error(error))
    return Check(name="loads", passed=True)


def served(kind: Kind[Any, Any], value: Any) -> Served:
    """What ``kind.load`` or ``kind.reload`` gave, if a reader can serve it.

    Raises:
        ContractError: it has no ``close()``, or one that would have to be awaited.
    """
    if isinstance(value, Served) and not isinstance(value, type) and callable(value.close):
        if inspect.iscoroutinefunction(value.close):
            raise ContractError(
                f"load of {type(kind).__name__} gave {_kind_of(value)}, whose close() is async and "
                "would never run: write def close"
            )
        return value
    raise ContractError(
        f"load of {type(kind).__name__} gave {_kind_of(value)}, which has no close(): give an "
        "object that has it, even if there is nothing to close"
    )


def _count(what: str, value: Any) -> int:
    """A number of things, whatever kind of whole number it is (numpy's, too)."""
    try:
        count = operator.index(value)
    except TypeError:
        count = -1
    if count < 0 or isinstance(value, bool):
        raise ContractError(f"Built.{what} is {value!r:.100}, not a number from 0")
    return count


def _check_file(label: object, file: object, job: Job) -> None:
    if not isinstance(label, str) or not is_file_name(label):
        raise ContractError(f"Built.files has the name {label!r:.100}, which is none for a file")
    if isinstance(file, BlobRef):
        known = [job.previous.manifest] if job.previous is not None else []
        known += [parent.manifest for parent in job.components.values()]
        if not any(file in manifest.files.values() for manifest in known):
            raise ContractError(f"Built.files[{label!r}] is a blob of no previous version")
        return
    if not isinstance(file, Path):
        raise ContractError(f"Built.files[{label!r}] is {_kind_of(file)}, not a Path")
    if not file.is_file() or file.is_symlink():
        raise ContractError(f"Built.files[{label!r}] is {file}, and there is no such file")
    if not file.resolve().is_relative_to(job.workdir.resolve()):
        raise ContractError(
            f"Built.files[{label!r}] is {file}, outside of the build's folder: "
            f"write it into job.workdir ({job.workdir}), from where it is moved into the store"
        )


def _method_mistakes(
    kind: type[Kind[Any, Any]], name: str, arguments: tuple[str, ...]
) -> Iterator[str]:
    found: Any = inspect.getattr_static(kind, name)
    call: Any = getattr(kind, name)
    where = f"{kind.__name__}.{name}"
    if not callable(call):
        yield f"{where} is {_kind_of(call)}, not a method"
        return
    if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call):
        yield f"{where} is async; it is called and its result used as it is: write def {name}"
        return
    bound = isinstance(found, staticmethod | classmethod)
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):  # written in C
        return
    try:
        signature.bind(*(() if bound else ("self",)), *arguments)
    except TypeError as error:
        yield f"{where} cannot be called with ({', '.join(arguments) or 'nothing'}): {error}"


def _served_mistakes(kind: type[Kind[Any, Any]]) -> Iterator[str]:
    """What the annotation of `load` says; without one, the first build finds out."""
    load: Callable[..., Any] = kind.load
    try:
        given = get_type_hints(load).get("return", Any)
    except Exception:  # noqa: BLE001 - names that only a type checker resolves
        return
    given = get_origin(given) or given
    if not isinstance(given, type) or given is Any:
        return
    if not issubclass(given, Served):
        yield (
            f"{kind.__name__}.load gives a {given.__name__}, which has no close(): "
            "a reader calls it when the version is no longer used"
        )
    for name in _SEARCHES:
        search: Any = inspect.getattr_static(given, name, None)
        if inspect.isfunction(search):
            try:
                inspect.signature(search).bind("self", "query", k=10)
            except TypeError as error:
                yield (
                    f"{kind.__name__}.load gives a {given.__name__}, whose {name} cannot be called "
                    f"with (query, k=10): {error}"
                )
    search_method: Any = inspect.getattr_static(given, "search", None)
    if (
        inspect.isfunction(search_method)
        and takes_vector(search_method)
        and not hasattr(given, "search_by_id")
    ):
        yield (
            f"{kind.__name__}.load gives a {given.__name__}, whose search takes a vector, "
            "and which lacks search_by_id(entry_id, *, k=10): without it, only Python asks it"
        )


def _failed(detail: str) -> Check:
    return Check(name="verify", passed=False, detail=detail)


def _kind_of(value: object) -> str:
    """What it is, without showing it: ``nothing (None)``, ``a dict``."""
    return "nothing (None)" if value is None else f"a {type(value).__name__}"
