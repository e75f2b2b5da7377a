"""What the library says, as the package says it."""

import types

import pytest

from seco import Progress, _results

STATES = ("SENT", "QUEUED", "RUNNING", "WAITING")


def told(state, **fields):
    """As the generated module tells progress."""
    asked = {f"is_{name}": lambda name=name: name == state for name in STATES}
    return types.SimpleNamespace(**asked, **fields)


@pytest.mark.parametrize(
    ("native", "progress"),
    [
        (told("SENT"), Progress("sent")),
        (told("QUEUED", position=3, wait_ms=1500), Progress("queued", position=3, wait=1.5)),
        (told("RUNNING"), Progress("running")),
        (told("WAITING", server=2), Progress("waiting", server=2)),
        (told("WAITING", server=0), Progress("waiting", server=0)),
    ],
    ids=lambda value: value.state if isinstance(value, Progress) else "",
)
def test_progress_has_its_state_and_what_belongs_to_it(native, progress):
    assert _results.progress(native) == progress


def test_the_library_has_these_states_and_no_others():
    from seco._native import seco as generated

    known = {name[3:] for name in dir(generated.RequestProgress) if name.startswith("is_")}
    assert {name for name in known if name.isupper()} == set(STATES)


def test_a_state_that_is_not_known_is_an_error():
    with pytest.raises(TypeError):
        _results.progress(told("PAUSED"))
