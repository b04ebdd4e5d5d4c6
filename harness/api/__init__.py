"""All that a plugin may import."""

from harness._words import closest
from harness.api.backend import (
    Backend,
    Device,
    EpochResult,
    Masker,
    Session,
    Settings,
    State,
    batch_rng,
)
from harness.api.blame import is_own, theirs
from harness.api.column import ReportColumn, ReportRow
from harness.api.component import API_VERSION, Component, Frozen, JsonValue, Kind, hookimpl, nested
from harness.api.engine import (
    Conditions,
    Convolution,
    Engine,
    EngineShape,
    Line,
    Logic,
    Part,
    Product,
    Ram,
    RamPurpose,
    Run,
    even_cuts,
    exact_sum,
)
from harness.api.files import data_places, open_plain, read_plain, read_plain_text
from harness.api.hardware import Cost, HardwareModel, Origin, Workload
from harness.api.native import ListedTensor, NativeModel, OwnModel, Place, opened_here
from harness.api.network import (
    GATES,
    LSTM,
    Activation,
    Axis,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Layer,
    Network,
    Pool2D,
    Role,
    Tensor,
    dropout_seed,
)
from harness.api.number_format import NumberFormat
from harness.api.operations import NumPyOperations, Operations
from harness.api.pattern import Frame, Pattern, WholeScopePattern, keep_best
from harness.api.program import (
    SGD,
    Adam,
    AdamW,
    Constant,
    Epoch,
    LearningRate,
    MaskUpdate,
    Optimiser,
    Phase,
    Prune,
    Rates,
    Recipe,
    Rewind,
    Shifted,
    StepDecay,
    StraightThrough,
    Strategy,
    Train,
)
from harness.api.schedule import AnySchedule, Cubic, CubicSchedule, Ramp, Schedule, SparsitySchedule
from harness.api.score import AnyScore, Gradient, Magnitude, Measurement, Need, Random, Score, ScoreInput, Solver
from harness.api.task import Batch, Evaluation, Metric, Problem, Split, Task
from harness.api.validation import Check, CheckKind
from harness.api.yaml import load_yaml, yaml12
from harness.arrays import Array, Mask, Matrix, keep_count
from harness.errors import (
    DataError,
    DivergedError,
    EmptySelectionError,
    HarnessError,
    NonFiniteError,
    OwnCodeError,
    PluginContractError,
    PluginUnavailableError,
    ShapeError,
    SpecError,
    StoreError,
    UnknownPluginError,
)
from harness.user_files import import_file

__all__ = [
    "API_VERSION", "GATES", "LSTM", "SGD", "Activation", "Adam", "AdamW", "AnySchedule", "AnyScore", "Array", "Axis",
    "Backend", "Batch", "Check", "CheckKind", "Component", "Conditions", "Constant", "Conv2D", "Convolution", "Cost",
    "Cubic", "CubicSchedule", "DataError", "Dense", "Device", "DivergedError", "Dropout", "Embedding",
    "EmptySelectionError", "Engine", "EngineShape", "Epoch", "EpochResult", "Evaluation", "Flatten", "Frame",
    "Frozen", "Gradient", "HardwareModel", "HarnessError", "JsonValue", "Kind", "Layer", "LearningRate", "Line",
    "ListedTensor", "Logic", "Magnitude", "Mask", "MaskUpdate", "Masker", "Matrix", "Measurement", "Metric",
    "NativeModel", "Need", "Network", "NonFiniteError", "NumPyOperations", "NumberFormat", "Operations", "Optimiser",
    "Origin", "OwnCodeError", "OwnModel", "Part", "Pattern", "Phase", "Place", "PluginContractError",
    "PluginUnavailableError", "Pool2D", "Problem", "Product", "Prune", "Ram", "RamPurpose", "Ramp", "Random", "Rates",
    "Recipe", "ReportColumn", "ReportRow", "Rewind", "Role", "Run", "Schedule", "Score", "ScoreInput", "Session",
    "Settings", "ShapeError", "Shifted", "Solver", "SparsitySchedule", "SpecError", "Split", "State", "StepDecay",
    "StoreError", "StraightThrough", "Strategy", "Task", "Tensor", "Train", "UnknownPluginError", "WholeScopePattern",
    "Workload", "batch_rng", "closest", "data_places", "dropout_seed", "even_cuts", "exact_sum", "hookimpl",
    "import_file", "is_own", "keep_best", "keep_count", "load_yaml", "nested", "open_plain", "opened_here",
    "read_plain", "read_plain_text", "theirs", "yaml12",
]  # fmt: skip
