"""The version of control clips travels with the weights and is checked where they are opened."""

import pytest

from vdot_core.signals.conventions import CONTROL_CONVENTIONS, KEY, control_conventions


def test_files_without_a_version_are_of_the_first():
    assert control_conventions({}) == 1
    assert control_conventions({KEY: str(CONTROL_CONVENTIONS)}) == CONTROL_CONVENTIONS


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.0", "9" * 400, str(CONTROL_CONVENTIONS + 1), ""])
def test_other_versions_are_refused(value):
    with pytest.raises(ValueError, match="update VDOT") as refusal:
        control_conventions({KEY: value})
    assert len(str(refusal.value)) < 200
