"""What a pattern declares."""

import pytest

from harness.api import Frame, PluginContractError
from harness.selection.layout import Layout


def test_the_old_name_of_the_unit_is_refused_with_the_new_one():
    with pytest.raises(PluginContractError, match=r"`cell` is called `unit` .* got cell=\(1, 4\); write unit=\(1, 4\)"):
        Frame(cell=(1, 4), group=(1, None))


def test_a_layout_asked_for_its_cell_names_its_unit():
    with pytest.raises(AttributeError, match="read `unit`"):
        _ = Layout.of(2, 4).cell
