import json
from pathlib import Path

import pytest
from harness_plugins.hardware import _devices
from harness_plugins.hardware._devices import UnknownDeviceError, device, known_devices
from harness_plugins.hardware.cycle_simulator import CycleSimulator
from pydantic import ValidationError
from ruamel.yaml import YAML

from harness.api import SpecError

TABLE = Path(_devices.__file__).with_name("devices.yaml")


def figures(node, path=""):
    """Every mapping with a `value`, and every number outside of one."""
    if isinstance(node, dict):
        if "value" in node:
            yield path, node
            return
        for key, child in node.items():
            yield from figures(child, f"{path}/{key}")
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from figures(child, f"{path}/{index}")
    elif isinstance(node, int | float):
        yield path, node


def test_every_number_of_the_table_has_an_origin_and_a_listed_source():
    table = YAML(typ="safe", pure=True).load(TABLE.read_text(encoding="utf-8"))
    bare = [path for path, figure in figures(table) if not isinstance(figure, dict)]
    sourceless = [
        path for path, figure in figures(table) if path != "/version" and figure["source"] not in table["sources"]
    ]

    assert bare == ["/version"]
    assert sourceless == []


def test_derived_figures_show_their_arithmetic():
    table = YAML(typ="safe", pure=True).load(TABLE.read_text(encoding="utf-8"))

    assert [
        path
        for path, figure in figures(table)
        if path != "/version" and figure["origin"] == "derived" and "check" not in figure
    ] == []


def test_every_device_can_be_looked_up():
    found = [device(name) for name in known_devices()]

    assert all(entry.entry.dsp.count.value > 0 and entry.ram.blocks(16, 512) == 1 for entry in found)


def test_an_unknown_device_is_refused_when_the_model_is_made_and_the_nearest_name_is_offered():
    with pytest.raises(
        ValidationError, match=r"unknown device 'arria10_gx115'; did you mean 'arria10_gx1150'\? known: "
    ):
        CycleSimulator(device="arria10_gx115")


def test_a_look_up_of_an_unknown_device_is_an_error_of_the_experiment():
    with pytest.raises(SpecError, match="unknown device 'abacus'; known: arria10_gx1150, "):
        device("abacus")
    assert issubclass(UnknownDeviceError, ValueError)


@pytest.mark.parametrize(
    ("name", "width", "depth", "blocks"),
    [
        ("arria10_gx1150", 50 * 21, 450, 27),  # 40 x 512
        ("arria10_gx1150", 50 * 21, 900, 53),  # 20 x 1024
        ("arria10_gx1150", 26 * 22, 440, 15),
        ("arria10_gx1150", 26 * 22, 570, 29),  # just misses the 512-deep shape
        ("xc7z020", 340, 512, 10),  # 5 RAMB36E1 when synthesised
        ("arria10_gx1150", 16, 1, 1),
    ],
)
def test_a_memory_costs_whole_blocks_of_the_best_shape(name, width, depth, blocks):
    assert device(name).ram.blocks(width, depth) == blocks


def test_a_vector_ram_of_look_up_tables_costs_what_synthesis_found():
    small = device("xc7z020").distributed

    assert 16 * small.size(16, 256) == 384 * 4  # 384 RAM64M of four LUTs for 16 RAMs of 16 x 256


def test_the_ceiling_leaves_four_fifths_of_the_multipliers():
    assert device("arria10_gx1150").most_multipliers(16) == 2428  # 0.80 x 2 x 1518
    assert device("xc7z020").most_multipliers(16) == 176


def test_a_report_shows_a_figure_with_its_origin_and_its_source_in_full():
    plain = device("xcu280").entry.dsp.count.plain()

    assert plain["value"] == 9024 and plain["origin"] == "read"
    assert plain["source"].endswith("(as quoted by somebody else)")
    json.dumps(plain)
