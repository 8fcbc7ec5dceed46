"""What the user can mend in training, scoring and evaluation; raised throughout `train`. Imports no torch."""

from importlib.util import find_spec

from configs.errors import DescantError


class TrainError(DescantError):
    """Data, model folder or settings with which there is nothing to train, score or evaluate."""


class StoppedError(TrainError):
    """Raised by the training loop: the work cannot go on, such as a loss that is not a number."""

    exit_code = 1


class InterruptedFitError(TrainError):
    """Raised by a fit on Ctrl-C: the message says where the fit will go on."""

    exit_code = 1


def require_extra() -> None:
    """Raise a TrainError when the packages of the `train` extra are not installed."""
    for package in (
        "numpy",
        "torch",
        "transformers",
        "peft",
        "tokenizers",
        "safetensors",
        "sklearn",
        "scipy",
        "matplotlib",
    ):
        if find_spec(package) is None:
            raise TrainError(
                f"{package} is not installed, which training and scoring need: pip install 'descant[train]'"
            )
