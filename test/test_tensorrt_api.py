"""Every call of TensorRT and CUDA in the code exists in the real bindings, of each version meant.

Bindings import without a GPU, so they are asked themselves: TensorRT-RTX from the environment,
TensorRT 10.3 and 11 with CUDA 12 and 13 from the folders that `make test` installs. What the code
calls is read from the code: names are followed from `trt` and `cudart` through assignments and
through the return types that the bindings document.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import host_cuda
import host_tensorrt
import pytest
from host_cuda import HostCuda
from host_tensorrt import FLAVOURS, HostTensorRt
from shared_library import write_shared_library

from mono_depth_ros.engines.tensorrt_library import TRAITS

ENGINES = Path(__file__).parents[1] / "mono_depth_ros" / "engines"
BINDINGS = Path(sys.prefix) / "bindings"
# Flavour of TensorRT -> module and the folder that it is in; None is the environment.
TENSORRT: dict[str, tuple[str, str | None]] = {
    "tensorrt 10.3": ("tensorrt_bindings", "tensorrt_10"),
    "tensorrt 11.4": ("tensorrt_bindings", "tensorrt_11"),
    "tensorrt_rtx 1.7": ("tensorrt_rtx", None),
}
CUDA: dict[str, tuple[str, str | None]] = {
    "CUDA 12": ("cuda.bindings.runtime", "tensorrt_10"),
    "CUDA 13": ("cuda.bindings.runtime", None),
}
# What the bindings of TensorRT take from its libraries, which are not there.
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
FUNCTIONS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getPluginRegistry",
    "getBuilderPluginRegistry", "getNvOnnxParserVersion", "initLibNvInferPlugins",
)  # fmt: skip
# Dotted name -> number of a member of an enumeration, or documentation.
Surface = dict[str, int | str]

INSPECT = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
surface = {}
for name, value in vars(module).items():
    surface[name] = value if type(value) is int else str(getattr(value, "__doc__", None) or "")
    if isinstance(value, type):
        members = getattr(value, "__members__", {})
        for attribute in dir(value):
            if attribute in members:
                surface[f"{name}.{attribute}"] = int(members[attribute])
            else:
                document = getattr(getattr(value, attribute, None), "__doc__", None)
                surface[f"{name}.{attribute}"] = str(document or "")
json.dump(surface, sys.stdout)
"""


def inspected(module: str, folder: str | None, scratch: Path) -> Surface | str:
    """What a module holds, or why it cannot be looked at."""
    environment = dict(os.environ)
    if folder is not None:
        place = BINDINGS / folder
        if not (place / module.split(".")[0]).exists():
            return (
                f"{module} is not in {place}: make test installs it, where it is published for"
                f" this machine and Python {sys.version_info.major}.{sys.version_info.minor}"
            )
        for library in LIBRARIES:
            for version in (10, 11):
                write_shared_library(scratch / f"lib{library}.so.{version}", FUNCTIONS)
        environment |= {"PYTHONPATH": str(place), "LD_LIBRARY_PATH": str(scratch)}
    command = [sys.executable, "-c", INSPECT, module]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    surface: Surface = json.loads(answer.stdout)
    return surface


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Surface | str]:
    scratch = tmp_path_factory.mktemp("libraries")
    return {
        name: inspected(module, folder, scratch)
        for name, (module, folder) in (TENSORRT | CUDA).items()
    }


def surface_of(surfaces: dict[str, Surface | str], name: str) -> Surface:
    surface = surfaces[name]
    if isinstance(surface, str):
        pytest.skip(surface)
    return surface


def signatures(document: str, name: str) -> list[tuple[list[str], int, str]]:
    """Names of the arguments, how many of them must be given, and the return type, of each
    overload that pybind11 or Cython wrote into a docstring.
    """
    found = []
    # The type of an argument may hold brackets, with commas in them.
    head = re.compile(rf"^(?:\d+\. )?{re.escape(name)}\((.*)\)(?: -> (.*))?$", re.MULTILINE)
    for match in head.finditer(document):
        if match[1] == "*args, **kwargs":
            continue
        depth, pieces = 0, [""]
        for letter in match[1]:
            depth += (letter in "[(<") - (letter in "])>")
            if letter == "," and depth == 0:
                pieces.append("")
            else:
                pieces[-1] += letter
        arguments = [piece.strip() for piece in pieces if piece.strip()]
        names = [re.split(r"[:=]", argument)[0].split()[-1] for argument in arguments]
        needed = sum("=" not in argument for argument in arguments)
        if names[:1] == ["self"]:
            names, needed = names[1:], needed - 1
        found.append((names, needed, re.split(r"[.:]+", match[2] or "")[-1]))
    return found


@dataclass(frozen=True)
class Use:
    """One thing of TensorRT or CUDA that the code uses.

    Attributes:
        root: "trt" or "cudart".
        path: dotted name in the module.
        count: arguments that it is called with; None where it is not called.
        runtimes: keys of `TRAITS` that the line is run with.
        place: file and line.
    """

    root: str
    path: str
    count: int | None
    runtimes: frozenset[str]
    place: str


class Uses(ast.NodeVisitor):
    """Follows `trt` and `cudart` through a file.

    A parameter of type Any whose name is in `PARAMETERS` is taken for what it is called. Under a
    condition on one of the `Traits` a line belongs to the runtimes that have the trait, and so do
    the lines after a call of a function that raises for the others.
    """

    PARAMETERS: ClassVar = {
        "builder": "Builder", "config": "IBuilderConfig", "network": "INetworkDefinition",
        "parser": "OnnxParser", "runtime": "Runtime", "engine": "ICudaEngine",
        "context": "IExecutionContext", "runtime_config": "IRuntimeConfig",
    }  # fmt: skip

    def __init__(self, file: str, known: dict[str, Surface]) -> None:
        self.uses: list[Use] = []
        self._file = file
        self._known = known
        self._runtimes = frozenset(TRAITS)
        self._names: dict[str, tuple[str, str, frozenset[str]]] = {}
        # Functions that return for these runtimes only.
        self._guards: dict[str, frozenset[str]] = {}

    # What an expression is: root, dotted name, and the runtimes that it exists with.

    def _resolve(self, node: ast.expr) -> tuple[str, str, frozenset[str]] | None:
        if isinstance(node, ast.Name) and node.id in ("trt", "cudart"):
            return node.id, "", self._runtimes
        if isinstance(node, ast.Attribute) and node.attr.lstrip("_") in ("trt", "cudart"):
            return node.attr.lstrip("_"), "", self._runtimes
        if isinstance(node, (ast.Name, ast.Attribute)) and ast.unparse(node) in self._names:
            root, path, runtimes = self._names[ast.unparse(node)]
            return root, path, runtimes & self._runtimes
        if isinstance(node, ast.Attribute):
            base = self._resolve(node.value)
            if base is None or (base[1] and not self._is_class(base[0], base[1])):
                return None
            return base[0], f"{base[1]}.{node.attr}".lstrip("."), base[2]
        if isinstance(node, ast.Call):
            called = self._resolve(node.func)
            if called is None:
                return None
            if self._is_class(called[0], called[1]):
                return called
            result = self._returned(called[0], called[1])
            return None if result is None else (called[0], result, called[2])
        if isinstance(node, ast.BoolOp):
            return self._resolve(node.values[0])
        if isinstance(node, ast.IfExp):
            return self._resolve(node.body) or self._resolve(node.orelse)
        return None

    def _surfaces(self, root: str) -> Iterator[Surface]:
        for name, surface in self._known.items():
            if (name in CUDA) == (root == "cudart"):
                yield surface

    def _is_class(self, root: str, path: str) -> bool:
        return any(f"{path}.__init__" in surface for surface in self._surfaces(root))

    def _returned(self, root: str, path: str) -> str | None:
        for surface in self._surfaces(root):
            for _, _, result in signatures(str(surface.get(path, "")), path.split(".")[-1]):
                # Some are documented by their name in C++.
                for name in (result, result.removeprefix("I")):
                    if self._is_class(root, name):
                        return name
        return None

    def _note(self, node: ast.AST, what: Any, count: int | None) -> None:
        if what is not None and what[1]:
            line = getattr(node, "lineno", 0)
            self.uses.append(Use(what[0], what[1], count, what[2], f"{self._file}:{line}"))

    # Statements.

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._note(node, self._resolve(node), None)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        starred = any(isinstance(argument, ast.Starred) for argument in node.args)
        if not starred:
            self._note(node, self._resolve(node.func), len(node.args) + len(node.keywords))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
            for name, value in pairs:
                if (what := self._resolve(value)) is not None:
                    self._names[ast.unparse(name)] = what

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            what = self._resolve(base)
            self._note(node, what, None)
            for method in node.body:
                # Overrides are called by TensorRT, with its arguments.
                if what and isinstance(method, ast.FunctionDef) and method.name[0] != "_":
                    override = (what[0], f"{what[1]}.{method.name}", what[2])
                    self._note(method, override, len(method.args.args) - 1)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for statement in node.body:
            if isinstance(statement, ast.If) and isinstance(statement.body[-1], ast.Raise):
                passing = _condition(statement.test)[1]
                self._guards[node.name] = self._guards.get(node.name, passing) & passing
        outside = dict(self._names)
        for argument in (*node.args.args, *node.args.kwonlyargs):
            self._names.pop(argument.arg, None)
            kind = self.PARAMETERS.get(argument.arg)
            if kind and argument.annotation and ast.unparse(argument.annotation) == "Any":
                self._names[argument.arg] = ("trt", kind, self._runtimes)
        self._block(node.body)
        attributes = {name: what for name, what in self._names.items() if "." in name}
        self._names = outside | attributes

    def visit_If(self, node: ast.If) -> None:
        self._block([node])

    def _block(self, statements: Sequence[ast.stmt]) -> None:
        outside = self._runtimes
        for statement in statements:
            if not isinstance(statement, ast.If):
                self.visit(statement)
                called = getattr(getattr(statement, "value", None), "func", None)
                if isinstance(called, ast.Name):
                    self._runtimes &= self._guards.get(called.id, self._runtimes)
                continue
            self.visit(statement.test)
            here = self._runtimes
            then, otherwise = (runtimes & here for runtimes in _condition(statement.test))
            self._runtimes = then
            self._block(statement.body)
            self._runtimes = otherwise
            self._block(statement.orelse)
            leaves = isinstance(statement.body[-1], (ast.Raise, ast.Return, ast.Continue))
            self._runtimes = otherwise if leaves else here
        self._runtimes = outside


def _condition(test: ast.expr) -> tuple[frozenset[str], frozenset[str]]:
    """Runtimes that a condition may be true with, and false with."""
    everything = frozenset(TRAITS)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        true, false = _condition(test.operand)
        return false, true
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        parts = [_condition(value)[0] for value in test.values]
        return everything.intersection(*parts), everything
    if isinstance(test, ast.Attribute) and ast.unparse(test.value).endswith("traits"):
        true = frozenset(name for name, traits in TRAITS.items() if getattr(traits, test.attr))
        return true, everything - true
    return everything, everything


def uses_in(source: str, file: str, surfaces: dict[str, Surface | str]) -> list[Use]:
    known = {name: value for name, value in surfaces.items() if isinstance(value, dict)}
    visitor = Uses(file, known)
    tree = ast.parse(source)
    # Once more: a method may use an attribute that a later one assigns.
    visitor.visit(tree)
    visitor.uses.clear()
    visitor.visit(tree)
    return visitor.uses


def used_by_the_code(surfaces: dict[str, Surface | str]) -> list[Use]:
    files = sorted((*ENGINES.glob("tensorrt*.py"), *ENGINES.glob("cuda*.py")))
    return [use for file in files for use in uses_in(file.read_text(), file.name, surfaces)]


def faults(uses: list[Use], root: str, runtime: str | None, surface: Surface) -> list[str]:
    """What of these a module does not have, or takes other arguments."""
    found = []
    for use in uses:
        if use.root != root or (runtime is not None and runtime not in use.runtimes):
            continue
        if use.path not in surface:
            found.append(f"{use.place}: {use.path} does not exist")
        elif use.count is not None:
            name = use.path.split(".")[-1]
            document = surface[use.path]
            if f"{use.path}.__init__" in surface:
                name, document = "__init__", surface[f"{use.path}.__init__"]
            overloads = signatures(str(document), name)
            if overloads and not any(n <= use.count <= len(a) for a, n, _ in overloads):
                found.append(f"{use.place}: {use.path} does not take {use.count} arguments")
    return found


@pytest.mark.parametrize("flavour", TENSORRT)
def test_what_the_code_uses_of_tensorrt_is_there(
    surfaces: dict[str, Surface | str], flavour: str
) -> None:
    surface = surface_of(surfaces, flavour)
    assert faults(used_by_the_code(surfaces), "trt", FLAVOURS[flavour][0], surface) == []


@pytest.mark.parametrize("version", CUDA)
def test_what_the_code_uses_of_cuda_is_there(
    surfaces: dict[str, Surface | str], version: str
) -> None:
    surface = surface_of(surfaces, version)
    assert faults(used_by_the_code(surfaces), "cudart", None, surface) == []


def test_the_code_is_followed_to_what_it_uses(surfaces: dict[str, Surface | str]) -> None:
    found = {(use.root, use.path) for use in used_by_the_code(surfaces)}
    assert found >= {
        ("trt", "Builder.build_serialized_network"),
        ("trt", "OnnxParser.parse"),
        ("trt", "ParserError.node_operator"),
        ("trt", "IBuilderConfig.progress_monitor"),
        ("trt", "ITimingCache.serialize"),
        ("trt", "IProgressMonitor.step_complete"),
        ("trt", "ILogger.log"),
        ("trt", "ICudaEngine.device_memory_size_v2"),
        ("trt", "IExecutionContext.set_tensor_address"),
        ("trt", "IExecutionContext.execute_async_v3"),
        ("trt", "IRuntimeCache.serialize"),
        ("cudart", "cudaMemcpyAsync"),
        ("cudart", "cudaGraphLaunch"),
        ("cudart", "cudaError_t.cudaErrorMemoryAllocation"),
    }


def test_wrong_uses_are_found(surfaces: dict[str, Surface | str]) -> None:
    source = textwrap.dedent("""
        def load(self, trt, library, plan):
            engine = trt.Runtime(library.log).deserialize_cuda_engine(plan)
            engine.no_such_method()
            self._context = engine.create_execution_context()
            config = trt.Builder().create_builder_config()
            config.num_compute_capabilities = 1
            if library.traits.ahead_of_time:
                config.set_compute_capability(trt.ComputeCapability.SM86, 0)
            if not library.traits.ahead_of_time:
                return
            config.get_compute_capability(0)

        def check(library):
            if not library.traits.ahead_of_time:
                raise ValueError
            return 0

        def target(config: Any, library):
            if library:
                check(library)
                config.get_compute_capability(0)
            config.num_compute_capabilities

        def run(self, cudart):
            self._context.execute_async_v3()
            cudart.cudaMalloc(1, 2)
            cudart.cudaMaloc(1)
    """)
    uses = uses_in(source, "x.py", surfaces)
    surface = surface_of(surfaces, "tensorrt_rtx 1.7")
    common = [
        "x.py:4: ICudaEngine.no_such_method does not exist",
        "x.py:4: ICudaEngine.no_such_method does not exist",
        "x.py:6: Builder does not take 0 arguments",
        "x.py:26: IExecutionContext.execute_async_v3 does not take 0 arguments",
    ]
    assert faults(uses, "trt", "tensorrt_rtx", surface) == common
    surface = surface_of(surfaces, "tensorrt 11.4")
    assert faults(uses, "trt", "tensorrt", surface) == [
        *common[:3],
        "x.py:7: IBuilderConfig.num_compute_capabilities does not exist",
        "x.py:23: IBuilderConfig.num_compute_capabilities does not exist",
        common[3],
    ]
    assert faults(uses, "cudart", None, surface_of(surfaces, "CUDA 13")) == [
        "x.py:27: cudaMalloc does not take 2 arguments",
        "x.py:28: cudaMaloc does not exist",
        "x.py:28: cudaMaloc does not exist",
    ]


@pytest.mark.parametrize("flavour", TENSORRT)
def test_the_stand_in_has_nothing_that_tensorrt_has_not(
    surfaces: dict[str, Surface | str], flavour: str
) -> None:
    surface = surface_of(surfaces, flavour)
    module = HostTensorRt(flavour, HostCuda()).module
    compared = 0
    for base in host_tensorrt.CLASSES:
        if not hasattr(module, base.__name__):
            continue
        assert base.__name__ in surface
        for name, value in vars(base).items():
            path = f"{base.__name__}.{name}"
            if name.startswith("_") or path in host_tensorrt.ONLY:
                continue
            assert path in surface, path
            if inspect.isfunction(value):
                ours = list(inspect.signature(value).parameters)[1:]
                theirs = [names for names, _, _ in signatures(str(surface[path]), name)]
                # Optional arguments that nobody here gives are left out.
                assert any(ours == names[: len(ours)] for names in theirs), (path, theirs)
                compared += 1
    assert compared > 25
    for title in (*host_tensorrt.ENUMERATIONS, "NetworkDefinitionCreationFlag"):
        for member in getattr(module, title, ()):
            assert surface[f"{title}.{member.name}"] == int(member), (title, member)
    severities: Any = host_tensorrt.Severity
    for member in severities:
        assert f"ILogger.{member.name}" in surface


@pytest.mark.parametrize("flavour", TENSORRT)
def test_the_stand_ins_differ_where_the_real_ones_do(
    surfaces: dict[str, Surface | str], flavour: str
) -> None:
    surface = surface_of(surfaces, flavour)
    for path, flavours in host_tensorrt.ONLY.items():
        assert (path in surface) is (flavour in flavours), path


@pytest.mark.parametrize("version", CUDA)
def test_the_stand_in_for_cuda_has_its_functions(
    surfaces: dict[str, Surface | str], version: str
) -> None:
    surface = surface_of(surfaces, version)
    for name in host_cuda.FUNCTIONS:
        ours = list(inspect.signature(getattr(HostCuda, name)).parameters)[1:]
        (theirs, _, _), *_ = signatures(str(surface[name]), name)
        assert ours == theirs, name
