"""What several patterns check in the same words."""

from harness.api import ShapeError


def require_divisor(pattern: str, parameter: str, size: int, rows: int, cols: int) -> None:
    """Refuse a group width that does not divide the columns of a matrix.

    Raises:
        ShapeError: it does not; the sentence names the parameter and the widths that would do.
    """
    if cols % size == 0:
        return
    choices = ", ".join(str(part) for part in range(2, cols + 1) if cols % part == 0)
    raise ShapeError(
        f"{pattern}: cols must be a multiple of {parameter}={size}, got a matrix of {rows} x {cols}; "
        f"set `{parameter}` to a divisor of {cols}: {choices}"
    )
