"""A dense recipe like the language model's: 13 epochs, the rate halved from the fifth."""

from harness.api import SGD, Recipe, StepDecay


def recipe(epochs=13, steps_per_epoch=50):
    schedule = StepDecay(initial=1.0, decay=0.5, full_epochs=4)
    return Recipe(
        epochs=epochs, optimiser=SGD(), learning_rate=schedule, clip_norm=5.0, steps_per_epoch=steps_per_epoch
    )
