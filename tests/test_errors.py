"""What holds for every error of the package, whatever it is about."""

from __future__ import annotations

import inspect
import pickle
from typing import Any, Final

import pytest

from actorflow import errors
from actorflow.errors import ActorflowError

CLASSES: Final = sorted(
    {
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, ActorflowError)
    },
    key=lambda it: it.__name__,
)

# Something to say for a field, by what its annotation begins with.
SAMPLES: Final[dict[str, Any]] = {
    "str": "text",
    "int": 7,
    "float": 2.5,
    "bool": True,
    "tuple": ("a", "b"),
    "Sequence": ("a", "b"),
    "list": ["a", "b"],
    "Mapping": {"a": "b"},
    "dict": {"a": "b"},
    "Exception": ValueError("original"),
    "BaseException": ValueError("original"),
    "frozenset": frozenset({"a"}),
    "object": "found",
    "Any": "found",
}


def sample(error: type[ActorflowError]) -> ActorflowError:
    """An error of the class with something in each field that has to be given."""
    values = {}
    for name, parameter in inspect.signature(error).parameters.items():
        if parameter.default is parameter.empty:
            kind = str(parameter.annotation).replace("typing.", "")
            found = [value for start, value in SAMPLES.items() if kind.startswith(start)]
            values[name] = found[0] if found else "text"
    if "failures" in values:
        # They are records with fields of their own; none will do.
        values["failures"] = ()
    return error(**values)


# The roots of the tree are caught, not raised.
RAISED: Final = [
    it for it in CLASSES if not it.__subclasses__() or inspect.signature(it).parameters
]


@pytest.mark.parametrize("error", RAISED, ids=lambda it: it.__name__)
def test_every_error_is_one_sentence_that_survives_a_pickle(error: type[ActorflowError]) -> None:
    made = sample(error)
    made.add_note("seen by a test")

    again = pickle.loads(pickle.dumps(made))

    text = str(made)
    assert text
    assert "\n" not in text
    assert str(again) == text
    assert type(again) is error
    assert again.__notes__ == made.__notes__
    assert made.__notes__[-1] == "seen by a test"
    assert any(note.startswith("see: ") for note in made.__notes__)


@pytest.mark.parametrize(
    "error", [it for it in RAISED if not it.__subclasses__()], ids=lambda it: it.__name__
)
def test_every_error_has_a_code_and_says_what_to_do(error: type[ActorflowError]) -> None:
    made = sample(error)

    assert made.code
    assert made.doc_url.endswith("#" + made.code.lower())
    assert made.fix_hint
