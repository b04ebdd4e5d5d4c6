"""What hardware models are asked about a pattern's masks on a task."""

from collections.abc import Mapping, Sequence

from harness.api import Mask, NativeModel, Network, Pattern, Problem, Tensor, Workload
from harness.discovery.asking import banks_of


def workload_of(
    pattern: Pattern | None,
    problem: Problem,
    scope: Sequence[Tensor],
    masks: Mapping[str, Mask],
    activation_density: Mapping[str, float],
) -> Workload:
    """A scope as hardware models see it, with what an evaluation found of the layers in it."""
    layers = {tensor.layer for tensor in scope}
    return Workload(
        network=problem.network,
        tensors=tuple(scope),
        masks=masks,
        banks=pattern_banks(pattern, scope),
        output_pixels=output_pixels(problem.network),
        activation_density={layer: value for layer, value in activation_density.items() if layer in layers},
        convolutions={layer: each for layer, each in problem.network.convolutions().items() if layer in layers},
        steps={layer: count for layer, count in _steps(problem.network).items() if layer in layers},
    )


def _steps(network: Network) -> dict[str, int]:
    """How often recurrent layers run for one item: those of a user's own model, where tracing it told."""
    if not isinstance(network, NativeModel):
        return {}
    return {layer: count for layer, count in network.steps.items() if count is not None}


def pattern_banks(pattern: Pattern | None, tensors: Sequence[Tensor]) -> dict[str, int]:
    """Equally filled banks per row, by tensor name, where the pattern has them."""
    if pattern is None:
        return {}
    counts = {tensor.name: banks_of(pattern, tensor) for tensor in tensors}
    return {name: banks for name, banks in counts.items() if banks is not None}


def output_pixels(network: Network) -> dict[str, int]:
    """Output positions of every convolution, by layer name; of a user's own model those that were traced."""
    # A native network has no geometry but what tracing it found.
    if isinstance(network, NativeModel):
        return dict(network.positions)
    return {layer: geometry.positions for layer, geometry in network.convolutions().items()}
