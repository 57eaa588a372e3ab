"""The faults that are seeded into the kernel keep up with it.

Trying them takes long and is no part of the gate. This file stays outside of
`tests/actors`, whose copies contain the faults.
"""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from tests.actors.faults.run_faults import PACKAGE, ROOT, Fault, load

FAULTS = load()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.file}: {fault.name}")
def test_fault_finds_its_place_and_leaves_python(fault: Fault) -> None:
    source = (ROOT / PACKAGE / fault.file).read_text("utf-8")

    assert source.count(fault.old) == 1
    assert fault.new != fault.old
    ast.parse(source.replace(fault.old, fault.new))


def test_no_two_faults_have_one_name() -> None:
    names = Counter((fault.file, fault.name) for fault in FAULTS)

    assert [name for name, times in names.items() if times > 1] == []
