"""A contract for import-linter: names of a package that only some modules may import."""

import re
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output

_NAMES = re.compile(r"\w+")


class NamesContract(Contract):
    """Modules of ``container`` import none of ``names`` from ``package``, but for files called ``allowed_files``.

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
            if not module.startswith(f"{self.container}.") or module.rpartition(".")[2] in self.allowed_files:
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
        for one in check.metadata["wrong"]:
            output.print_error(one)
