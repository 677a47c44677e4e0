"""Contracts for import-linter: layers with room for modules that nobody names, and names that only some may import."""

import re
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output
from importlinter.contracts.layers import Layer, LayersContract, ModuleTail

_NAMES = re.compile(r"\w+")


class OpenLayersContract(LayersContract):
    """Layers of one container; ``*`` in a layer stands for every module of the container that no layer names."""

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Put the modules that nobody names in their layer, and check the layers."""
        options: Any = self  # import-linter puts values in place of the fields
        (container,) = options.containers
        children = {child.rpartition(".")[2] for child in graph.find_children(str(container))}
        named = {tail.name for layer in options.layers for tail in layer.module_tails}
        unnamed = {ModuleTail(name) for name in children - named}
        options.layers = [
            Layer(unnamed | layer.module_tails - {_REST} if _REST in layer.module_tails else layer.module_tails)
            for layer in options.layers
        ]
        return super().check(graph, verbose)


_REST = ModuleTail("*")


class NamesContract(Contract):
    """Modules of ``container`` import none of ``names`` from ``package``, but for files called ``allowed_files``.

    A file called ``intake_repository`` is allowed where ``repository`` is.

    ``except_modules`` are modules that may, each by its whole name; one that need not is an error.
    """

    container: Any = fields.StringField()
    package: Any = fields.StringField()
    names: Any = fields.SetField(subfield=fields.StringField())
    allowed_files: Any = fields.SetField(subfield=fields.StringField())
    except_modules: Any = fields.SetField(subfield=fields.StringField(), required=False, default=set())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002  # as import-linter calls it
        """Look at the line of every import of the package."""
        found: dict[str, str] = {}
        for module in graph.find_modules_that_directly_import(self.package):
            if not module.startswith(f"{self.container}.") or _kind(module) in self.allowed_files:
                continue
            for detail in graph.get_import_details(importer=module, imported=self.package):
                line = detail["line_contents"]
                # the whole package, or a list of names over several lines, may hold any of them
                if line.startswith("import ") or line.endswith("(") or self.names & set(_NAMES.findall(line)):
                    found[module] = line
        wrong = sorted(f"{module}: {line}" for module, line in found.items() if module not in self.except_modules)
        wrong += sorted(f"{module} is excepted without need" for module in self.except_modules - set(found))
        return ContractCheck(kept=not wrong, metadata={"wrong": wrong})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Name each import."""
        for line in check.metadata["wrong"]:
            output.print_error(line)


def _kind(module: str) -> str:
    return module.rpartition(".")[2].rpartition("_")[2]
