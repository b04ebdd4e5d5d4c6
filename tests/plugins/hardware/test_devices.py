import json
import re
from functools import cache
from pathlib import Path

import pytest
from harness_plugins.hardware import _devices
from harness_plugins.hardware._devices import (
    DeviceFileError,
    UnknownDeviceError,
    device,
    known_devices,
    load_device,
)
from harness_plugins.hardware._devices.catalogue import catalogue
from pydantic import BaseModel, ValidationError, field_validator
from ruamel.yaml import YAML

from harness.api import SpecError

TABLE = Path(_devices.__file__).with_name("devices.yaml")
OWN = Path(__file__).parents[3] / "examples" / "devices"


@cache
def table():
    return YAML(typ="safe", pure=True).load(TABLE.read_text(encoding="utf-8"))


def test_the_table_that_is_read_at_start_up_is_the_one_that_people_edit(request):
    written = TABLE.with_suffix(".json")
    if request.config.getoption("--update-golden"):
        written.write_text(json.dumps(table(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    assert json.loads(written.read_text(encoding="utf-8")) == table()


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
    content = table()
    bare = [path for path, figure in figures(content) if not isinstance(figure, dict)]
    sourceless = [
        path for path, figure in figures(content) if path != "/version" and figure["source"] not in content["sources"]
    ]

    assert bare == ["/version"]
    assert sourceless == []


def test_derived_figures_show_their_arithmetic():
    assert [
        path
        for path, figure in figures(table())
        if path != "/version" and figure["origin"] == "derived" and "check" not in figure
    ] == []


def test_sums_and_products_in_checks_are_right():
    checked = 0
    for path, figure in figures(table()):
        check = "" if path == "/version" else figure.get("check", "")
        formula = check.split(";")[0].replace(",", "").replace("BRAM36", "").replace("CLBs", "")
        if re.fullmatch(r"[0-9.+x() ]+[+x][0-9.+x() ]+", formula):
            assert (path, eval(formula.replace("x", "*"))) == (path, figure["value"])  # digits and signs only
            checked += 1

    assert checked >= 15


def test_every_listed_source_is_used():
    text = TABLE.read_text(encoding="utf-8")

    assert [key for key in table()["sources"] if text.count(f"ource: {key}") == 0] == []


def test_every_device_and_board_can_be_looked_up():
    found = [device(name) for name in known_devices()]

    assert len(found) == 18
    assert all(entry.entry.dsp.count.value > 0 and entry.ram.blocks(16, 512) == 1 for entry in found)


def test_boards_and_anchors_and_powers_speak_of_listed_chips_and_kinds():
    content = table()
    chips = set(content["devices"])
    named = [one["device"] for key in ("clock_anchors", "power_calibrations") for one in content[key]]
    lent = {chip["board"] for chip in content["devices"].values() if "board" in chip}
    unknown = [
        (name, kind)
        for name, board in content["boards"].items()
        for kind in board.get("available", {})
        if kind not in device(board["device"]).resources
    ]

    assert set(named) | {board["device"] for board in content["boards"].values()} <= chips
    assert lent <= set(content["boards"])
    assert unknown == []


def test_an_unknown_device_is_refused_where_a_field_checks_it_and_the_nearest_name_is_offered():
    class Model(BaseModel):
        device: str

        @field_validator("device")
        @classmethod
        def _known(cls, name):
            return device(name).id

    with pytest.raises(
        ValidationError, match=r"unknown device 'arria10_gx115'; did you mean 'arria10_gx1150'\? known: "
    ):
        Model(device="arria10_gx115")


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
        ("arria10_gx1150", 1, 16384, 1),
        ("stratix10_gx2800", 1, 16384, 8),  # nothing deeper than 2,048
    ],
)
def test_a_memory_costs_whole_blocks_of_the_best_shape(name, width, depth, blocks):
    assert device(name).ram.blocks(width, depth) == blocks


def test_a_36_kbit_block_is_two_of_18_kbit_in_every_shape():
    ram = device("xcku060").ram

    assert {
        ram.blocks(width, depth) for width, depth in [(72, 512), (36, 1024), (18, 2048), (9, 4096), (1, 32768)]
    } == {2}


def test_ultra_ram_has_one_shape_and_wastes_narrow_words():
    rams = device("xcu280").rams

    assert list(rams) == ["bram_18k", "uram"]
    assert rams["uram"].blocks(72, 4096) == rams["uram"].blocks(1, 1) == 1
    assert rams["uram"].blocks(73, 4097) == 4


def test_a_vector_ram_of_look_up_tables_costs_what_synthesis_found():
    small = device("xc7z020").distributed

    assert 16 * small.size(16, 256) == 384 * 4  # 384 RAM64M of four LUTs for 16 RAMs of 16 x 256


def test_the_ceiling_leaves_four_fifths_of_the_multipliers():
    assert device("arria10_gx1150").most_multipliers(16) == 2428  # 0.80 x 2 x 1518
    assert device("xc7z020").most_multipliers(16) == 176


@pytest.mark.parametrize(
    ("name", "bits", "shares_operand", "products"),
    [
        ("xczu9eg", 16, False, 1),
        ("xczu9eg", 16, True, 1),
        ("xczu9eg", 8, False, 1),
        ("xczu9eg", 8, True, 2),
        ("xczu9eg", 4, False, 2),
        ("xczu9eg", 4, True, 4),
        ("xc7z020", 4, True, 1),  # no figure: as the next wider width
        ("arria10_gx1150", 8, True, 2),
        ("arria10_gx1150", 18, False, 2),
        ("arria10_gx1150", 27, False, 1),
    ],
)
def test_a_dsp_block_packs_by_width_and_by_whether_an_operand_is_shared(name, bits, shares_operand, products):
    assert device(name).products_per_dsp(bits, shares_operand=shares_operand).value == products


def test_two_independent_4_bit_products_fit_one_dsp_block():
    signed = range(-8, 8)
    for a1, a2, w1, w2 in ((a, b, c, d) for a in signed for b in (-8, -1, 0, 7) for c in signed for d in (-8, -1, 7)):
        product = (a1 + a2 * 2**18) * (w1 + w2 * 2**9)
        low = (product + 2**8) % 2**9 - 2**8  # nine bits, signed
        rest = (product - low - a1 * w2 * 2**9 - a2 * w1 * 2**18) // 2**27

        assert (low, rest) == (a1 * w1, a2 * w2)
        assert abs(product) < 2**34


@pytest.mark.parametrize(("name", "bits", "widest"), [("xczu9eg", 19, 18), ("arria10_gx1150", 28, 27)])
def test_operands_wider_than_a_dsp_block_are_refused(name, bits, widest):
    with pytest.raises(SpecError, match=f"multiplies operands of up to {widest} bits, got {bits}; narrow them"):
        device(name).products_per_dsp(bits)


def test_a_report_shows_a_figure_with_its_origin_and_its_source_in_full():
    plain = device("xcu280").entry.dsp.count.plain()

    assert plain["value"] == 9024 and plain["origin"] == "read"
    assert plain["source"].startswith("public resource table for platform xilinx_u280")
    assert plain["source"].endswith("(as quoted by somebody else)")
    json.dumps(plain)


def test_a_board_is_its_chip_less_what_the_shell_takes():
    board, chip = device("alveo_u280"), device("xcu280")

    assert board.chip == chip.id
    assert {kind: usage.available for kind, usage in board.resources.items()} == {
        "dsp": 8496,
        "lut": 1163520,
        "ff": 2607360,  # what the shell takes of them is not known
        "bram_18k": 3504,
        "uram": 960,
        "lut_ultrascale": 1163520,  # the LUTs that are left
    }
    assert board.entry.off_chip.kind == "hbm"
    assert board.bytes_per_us() == pytest.approx(425e3, rel=0.01)  # measured: 425 GB/s


def test_a_chip_has_the_bandwidth_of_the_board_that_lends_its_memory():
    assert device("arria10_gx1150").bytes_per_us() == device("arria10_devkit").bytes_per_us() == pytest.approx(13.6e3)
    assert device("stratix10_gx2800").bytes_per_us() is None


def test_derated_ceilings_hold_for_every_kind():
    ceilings = {kind: usage.ceiling for kind, usage in device("xcvu9p").resources.items()}

    assert ceilings == {"dsp": 0.8, "lut": 0.7, "ff": 0.5, "bram_18k": 0.8, "uram": 0.8, "lut_ultrascale": 0.35}
    assert device("arria10_gx1150").resources["alm"].ceiling == 0.7


def test_a_usage_fits_up_to_its_ceiling_and_not_beyond():
    at, beyond = device("arria10_gx1150").usage("m20k", 2170), device("arria10_gx1150").usage("m20k", 2171)

    assert (at.fits, beyond.fits) == (True, False)
    assert at.share <= 1 < beyond.share


@pytest.mark.parametrize(
    ("name", "engine", "mhz", "origin"),
    [
        ("xcu280", "csr_stream", 237, "read"),  # split kernels, not the monolithic 117
        ("alveo_u280", "csr_stream", 237, "read"),
        ("xc7z020", "bank", 111.6, "read"),
        ("arria10_gx1150", "bank", 200, "recalled"),
        ("arria10_gx1150", "mcbbs_systolic", 242, "read"),
        ("arria10_gx1150", "column_fifo", 200, "assumed"),  # ESE ran on another chip
        ("stratix10_gx2800", "bank", 250, "assumed"),
        ("xcku060", "unheard_of", 200, "assumed"),
    ],
)
def test_an_engine_runs_at_what_such_a_design_reached_on_that_chip_else_at_the_devices_clock(name, engine, mhz, origin):
    clock = device(name).clock(engine)

    assert (clock.value, clock.origin) == (mhz, origin)


def test_memory_controllers_are_deducted_when_asked_for():
    left = device("xczu9eg").less_controllers("ddr4", 2)

    assert left.resources["bram_18k"].available == 1824 - 2 * 199
    assert left.resources["lut_ultrascale"].available == left.resources["lut"].available == 274080 - 2 * 33256
    assert left.entry.dsp.count.origin == "derived" and left.entry.dsp.count.value == 2520 - 6
    assert device("xczu9eg").resources["dsp"].available == 2520


def test_controllers_are_refused_where_no_figure_is_known_or_nothing_would_be_left():
    with pytest.raises(SpecError, match="arria10_gx1150: a ddr4 controller is only known in lut, ff, bram_18k, dsp"):
        device("arria10_gx1150").less_controllers("ddr4")
    with pytest.raises(SpecError, match="xc7z020: 2 ddr4 controllers leave no room"):
        device("xc7z020").less_controllers("ddr4", 2)


def test_the_catalogue_has_a_row_with_origins_for_every_device_and_board():
    rows = {row.id: row for row in catalogue()}

    assert tuple(rows) == known_devices()
    assert rows["xcku060"].multipliers_w16 == 2208
    assert rows["xcku060"].origins["dsp"] == "recalled"
    assert rows["alveo_u250"].origins["uram"] == "derived"
    assert rows["stratix10_gx2800"].off_chip is None and "off_chip" not in rows["stratix10_gx2800"].origins


@pytest.mark.parametrize("path", sorted(OWN.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_of_an_own_device_loads_and_calls_its_figures_assumed(path):
    own = device(str(path))

    assert own.id == str(path)
    assert own.most_multipliers(16) > 0
    assert {own.entry.dsp.count.origin, own.clock("bank").origin} == {"assumed"}


def test_an_own_device_may_describe_kinds_that_the_table_does_not_have():
    own = load_device(OWN / "own_kinds.yaml")

    assert own.ram.blocks(40, 257) == 2
    assert own.most_multipliers(8) == 480
    assert own.bytes_per_us() is None


def test_an_own_device_named_like_a_chip_of_the_table_takes_no_clock_from_it(tmp_path):
    path = tmp_path / "xc7z020.yaml"
    path.write_text((OWN / "small_card.yaml").read_text())

    assert load_device(path).clock("bank").value == 200


def test_a_device_file_that_changed_is_read_again(tmp_path):
    path = tmp_path / "card.yaml"
    text = (OWN / "small_card.yaml").read_text()
    path.write_text(text)
    before = device(str(path)).entry.dsp.count.value
    path.write_text(text.replace("value: 4100,", "value: 41000,"))

    assert (before, device(str(path)).entry.dsp.count.value) == (4100, 41000)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("value: 4100", "value: many", r"device\.dsp\.count\.value: input should be a valid number.*, got 'many'"),
        ("value: 4100", "value: 4100.5", r"device\.dsp\.count: a count must be a whole number"),
        ("value: 4100", "value: -1", r"device\.dsp\.count\.value: .* greater than or equal to 0, got -1"),
        ("value: 200,", "value: 0,", r"device\.clock_mhz: the value must be above 0"),
        (
            "kind: uram",
            "kind: oram",
            r"device\.rams\.1\.kind must be one of m20k, .*, got 'oram'; name one of them, or",
        ),
        ("kind: uram", "kind: bram_18k", r"every kind of RAM stands once in `rams`, got bram_18k, bram_18k"),
        ("kind: dsp48e2", "kind: dsp", r"device\.dsp\.kind must be one of dsp48e1, .*, got 'dsp'"),
        (
            "kind: lut_ultrascale",
            "kind: lut",
            r"device\.distributed\.kind must be one of mlab, .* under `distributed_ram`",
        ),
        ("kind: lut,", "kind: le,", r"device\.logic\.kind: input should be 'lut' or 'alm', got 'le'"),
        ("kind: ddr4", "kind: sram", r"device\.off_chip\.kind: input should be 'ddr3', 'ddr4' or 'hbm', got 'sram'"),
        (
            ", source: example}}\n  ff",
            ", source: hearsay}}\n  ff",
            r"device\.logic\.count\.source must be a key of `sources`",
        ),
        ("origin: assumed", "origin: guessed", r"got 'guessed'.*and 3 more; examples/devices/ has a whole file"),
        ("  ff: {", "  flipflops: {", r"device\.ff: field required; device\.flipflops: extra inputs are not permitted"),
        ("version: 1", "version: true", r"version: expected a number or a text, got true; correct it"),
        (
            "kind: uram, count: {value: ",
            "kind: uram, count: {value: true, was: ",
            r"device\.rams\.1\.count\.value: expected",
        ),
        ("version: 1", "version: 9", r"version: input should be 1, got 9"),
        ("version: 1", "version: [", r"a device file must be YAML, got in line \d+: .*; correct the syntax"),
    ],
)
def test_a_mistake_in_a_device_file_is_named_with_file_place_value_and_way_out(tmp_path, old, new, message):
    text = (OWN / "small_card.yaml").read_text()
    assert old in text
    path = tmp_path / "card.yaml"
    path.write_text(text.replace(old, new))

    with pytest.raises(DeviceFileError, match=message) as caught:
        device(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert isinstance(caught.value, SpecError)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- 1\n", "must be a mapping, got list"),
        (b"\xff\xfe\x00", "as UTF-16-LE text, got another byte at offset 2"),
        (b"", "got None"),
        (b"a: &a [*a]", "a value that contains itself"),
        (b"a: 2024-13-45", "must be plain YAML, got month"),
    ],
)
def test_a_file_without_a_mapping_is_refused(tmp_path, content, message):
    path = tmp_path / "card.yml"
    path.write_bytes(content)

    with pytest.raises(DeviceFileError, match=message):
        device(str(path))


def test_a_device_file_that_does_not_exist_is_refused_with_its_path():
    with pytest.raises(DeviceFileError, match=r"no_such_card\.yaml: expected a device file, got no such file"):
        device("no_such_card.yaml")


@pytest.mark.parametrize("value", ["1e308", "0x" + "F" * 30, "-1", ".inf", ".nan"])
def test_a_figure_that_no_chip_has_is_refused_at_its_field(tmp_path, value):
    text = (OWN / "small_card.yaml").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(re.sub(r"value: [0-9.e+_]+", f"value: {value}", text, count=1), encoding="utf-8")

    with pytest.raises(DeviceFileError, match=r"mine\.yaml.*(value|beyond 64 bits)"):
        load_device(path)
