"""From stages to records: the parts that need no run."""

from harness.api import Conv2D, Dense, Flatten, Network, Pool2D
from harness.execution.collect import output_pixels


def test_output_pixels_follow_padding_stride_and_pooling():
    network = Network(
        layers=(
            Conv2D(name="one", inputs=1, outputs=6, kernel=(5, 5), padding=2, input_label="image.channels"),
            Pool2D(size=2),
            Conv2D(name="two", inputs=6, outputs=16, kernel=(5, 3), stride=2, input_label="one.channels"),
            Flatten(),
            Dense(name="out", inputs=16 * 5 * 6, units=10, input_label="two.channels", input_repeat=30),
        ),
        input_shape=(1, 28, 28),
    )

    assert output_pixels(network) == {"one": 28 * 28, "two": 5 * 6}


def test_a_network_without_images_has_no_pixels():
    network = Network(layers=(Dense(name="out", inputs=4, units=2, input_label="features"),), input_shape=(4,))

    assert output_pixels(network) == {}
