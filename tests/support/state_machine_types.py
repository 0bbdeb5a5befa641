"""Walks the state machine with types for values: what a state reads must be what an earlier one left there.

It begins with each document that may start an execution, and takes each answer that a function's annotations allow by
itself, so that a branch knows which of them led to it.
"""

from __future__ import annotations

import ast
import re
import types
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

from ota_core.formats import contracts
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

PROJECT = Path(__file__).resolve().parents[2]
_FUNCTION = re.compile(r"\$\{(\w+)FunctionArn\}")
_PATH = re.compile(r"(?<!\$)\$(?:\.\w+(?:\[\d+\])*)+")
# What Step Functions itself says: the execution's ARN, and when it started.
_CONTEXT = {"$$.Execution.Id", "$$.Execution.StartTime"}


class Misfit(Exception):  # noqa: N818 - what was found
    """What is sent or read is not what the contract has."""


@dataclass(frozen=True)
class Constant:
    """A value that stands in the state machine itself."""

    value: Any


# What a value may be: a type, a constant, or an object whose fields are known one by one.
Shape = Any
Fields = dict[str, Shape]


@cache
def contracts_of(function: str) -> list[tuple[Any, tuple[Any, ...]]]:
    """The events that a handler's annotations name, each with what it may be answered."""
    tree = ast.parse((PROJECT / "functions" / function / "handler.py").read_text())
    handlers = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "lambda_handler"]
    overloads = [node for node in handlers if "overload" in map(ast.unparse, node.decorator_list)]
    return [
        (event, tuple(_annotated(handler.returns)))
        for handler in overloads or handlers
        for event in _annotated(handler.args.args[0].annotation)
    ]


def check_document(document: Any, *allowed: Any) -> None:
    """Hold a document to one of some types, down to its last item.

    Raises:
        TypeCheckError: a field lacks, is unknown or has another type.
    """
    check_type(document, Union[allowed], collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)  # noqa: UP007 - a tuple


def _annotated(node: ast.expr | None) -> Iterator[Any]:
    match node:
        case ast.BinOp(left, ast.BitOr(), right):
            yield from _annotated(left)
            yield from _annotated(right)
        case ast.Attribute(ast.Name("contracts"), name):
            yield from _members(getattr(contracts, name))
        case ast.Constant(None):
            yield types.NoneType
        case _:
            raise Misfit(f"{ast.unparse(node) if node else 'nothing'} is annotated; expected types of contracts")


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


@dataclass
class Walk:
    """A walk through a state machine.

    Attributes:
        taken: by state, the rules of a Choice that some value satisfies, and `Default`.
        sent: by type of event, the fields that states send.
    """

    definition: Mapping[str, Any]
    taken: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    sent: defaultdict[Any, set[str]] = field(default_factory=lambda: defaultdict(set))

    def run(self) -> None:
        """Walk every way.

        Raises:
            Misfit: a state sends or reads what no contract has, or has a branch that nothing takes.
        """
        for started_by in _members(contracts.PipelineInput):
            self._walk(self.definition, get_type_hints(started_by))
        for name, state in self.definition["States"].items():
            if state["Type"] == "Choice":
                expected = {str(number) for number in range(len(state["Choices"]))} | {"Default"}
                for rule in sorted(expected - self.taken[name]):
                    what = state["Choices"][int(rule)] if rule != "Default" else "Default"
                    raise Misfit(f"{name}: no value ever takes {what}")
        for event, fields in self.sent.items():
            if unsent := get_type_hints(event).keys() - fields:
                raise Misfit(f"{event.__name__}: no state sends {sorted(unsent)}")

    def _walk(self, machine: Mapping[str, Any], fields: Fields) -> None:
        ahead, seen = [(machine["StartAt"], fields)], []
        while ahead:
            name, fields = situation = ahead.pop()
            if situation in seen:
                continue
            seen.append(situation)
            try:
                ahead += self._ways(name, machine["States"][name], fields)
            except Misfit as why:
                raise Misfit(f"{name}: {why}") from why

    def _ways(self, name: str, state: Mapping[str, Any], fields: Fields) -> Iterator[tuple[str, Fields]]:
        """The states that may follow, each with what they find."""
        for key in ("OutputPath", "SecondsPath", "TimestampPath"):
            if key in state:
                _require(_read(fields, state[key]), {"SecondsPath": int, "TimestampPath": str}.get(key, object))
        match state["Type"]:
            case "Choice":
                for number in self._choose(name, state, fields):
                    rule = state["Choices"][int(number)]["Next"] if number != "Default" else state["Default"]
                    yield rule, fields
            case "Task":
                for result in self._results(state, fields):
                    if "Next" in state:
                        yield state["Next"], _leave(state, fields, result)
            case "Map":
                _sent(state["ItemReader"]["Parameters"], fields)
                # A line of the object that BatchIndex.key names.
                self._walk(state["ItemProcessor"], get_type_hints(contracts.PublishBatch))
                yield state["Next"], _leave(state, fields, object)
            case "Wait":
                yield state["Next"], fields

    def _choose(self, name: str, state: Mapping[str, Any], fields: Fields) -> Iterator[str]:
        for number, rule in enumerate(state["Choices"]):
            holds = _holds(rule, fields)
            if holds is not False:
                self.taken[name].add(str(number))
                yield str(number)
            if holds is True:
                return
        self.taken[name].add("Default")
        yield "Default"

    def _results(self, state: Mapping[str, Any], fields: Fields) -> tuple[Any, ...]:
        payload = _sent(state["Parameters"], fields) if "Parameters" in state else fields
        called = _FUNCTION.fullmatch(state["Resource"])
        if called is None:  # A service of AWS, of whose result a state takes what it names.
            selected = [name.removesuffix(".$") for name in state.get("ResultSelector", {})]
            return (_selected(tuple(selected)),)
        function = re.sub(r"(?<!^)(?=[A-Z])", "_", called[1]).lower()
        misfits = []
        for event, answers in contracts_of(function):
            try:
                _require(payload, event)
            except Misfit as why:
                misfits.append(f"{event.__name__}: {why}")
            else:
                self.sent[event] |= payload.keys()
                return answers
        raise Misfit("; ".join(misfits))


@cache
def _selected(names: tuple[str, ...]) -> Any:
    return TypedDict("Selected", dict.fromkeys(names, str))  # type: ignore[operator] # names that are known when it runs


def _leave(state: Mapping[str, Any], fields: Fields, result: Any) -> Fields:
    """What the next state finds."""
    path = state["ResultPath"]  # Without one the result would take everything's place.
    return fields if path is None else {**fields, path.removeprefix("$."): result}


def _holds(rule: Mapping[str, Any], fields: Fields) -> bool | None:
    """Whether a rule of a Choice holds; None where it may and may not."""
    if "IsPresent" in rule:
        try:
            _read(fields, rule["Variable"])
        except Misfit:
            return not rule["IsPresent"]
        return bool(rule["IsPresent"])
    [operator] = rule.keys() - {"Variable", "Next"}
    found = _read(fields, rule["Variable"])
    _require(found, {"StringEquals": str, "BooleanEquals": bool}[operator])
    if get_origin(found) is not Literal:
        return None
    return rule[operator] in get_args(found) and (len(get_args(found)) == 1 or None)


def _sent(template: Any, fields: Fields) -> Any:
    """What a template (Parameters) makes of a state's input."""
    if isinstance(template, list):
        return Constant([_sent(item, fields) for item in template])
    if not isinstance(template, dict):
        return Constant(template)
    return {
        name.removesuffix(".$"): _evaluate(value, fields) if name.endswith(".$") else _sent(value, fields)
        for name, value in template.items()
    }


def _evaluate(expression: str, fields: Fields) -> Any:
    if expression in _CONTEXT:
        return str
    if _PATH.fullmatch(expression):
        return _read(fields, expression)
    if not expression.startswith("States.Format("):
        raise Misfit(f"{expression} is neither a path nor States.Format")
    for path in _PATH.findall(expression):
        _read(fields, path)
    return str


def _read(fields: Fields, path: str) -> Any:
    """The type of what a path leads to, which must be there in any case."""
    found: Any = fields
    for step in re.findall(r"\w+", path):
        if step.isdecimal() and get_origin(found) is list:
            [found] = get_args(found)
            continue
        there = found if isinstance(found, dict) else _fields_of(found)
        if step not in there:
            where = "here" if isinstance(found, dict) else f"in {getattr(found, '__name__', found)}"
            raise Misfit(f"{path}: there is no {step!r} {where}, which has {sorted(there)}")
        found = there[step]
    return found


@cache
def _fields_of(kind: Any) -> Fields:
    """The fields that a TypedDict always has."""
    if not is_typeddict(kind):
        return {}
    return {name: hint for name, hint in get_type_hints(kind).items() if name in kind.__required_keys__}


def _require(shape: Shape, kind: Any) -> None:
    """Hold what is sent to a type."""
    if isinstance(shape, Constant):
        try:
            check_document(shape.value, kind)
        except TypeCheckError as error:
            raise Misfit(f"{shape.value!r} {error}") from error
    elif isinstance(shape, dict):
        hints = get_type_hints(kind) if is_typeddict(kind) else {}
        if unknown := shape.keys() - hints.keys():
            raise Misfit(f"{sorted(unknown)} unknown; expected {sorted(hints)}")
        if missing := kind.__required_keys__ - shape.keys():
            raise Misfit(f"{sorted(missing)} missing")
        for name, value in shape.items():
            try:
                _require(value, hints[name])
            except Misfit as why:
                raise Misfit(f"{name}: {why}") from why
    elif not _is_a(shape, kind):
        raise Misfit(f"{shape} is sent; expected {kind}")


def _is_a(kind: Any, expected: Any) -> bool:
    """Whether every value of a type is one of another type."""
    if kind == expected or expected is object or (kind, expected) == (int, float):
        return True
    if len(_members(kind)) > 1:
        return all(_is_a(member, expected) for member in _members(kind))
    if len(_members(expected)) > 1:
        return any(_is_a(kind, member) for member in _members(expected))
    if get_origin(kind) is Literal:
        values = get_args(kind)
        if get_origin(expected) is Literal:
            return set(values) <= set(get_args(expected))
        return all(type(value) is expected for value in values)
    return False
