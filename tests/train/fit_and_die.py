"""A program for test_checkpoint and test_sources: run a fit, and kill this process once a step is reached."""

import os
import signal
import sys

from configs.fit_settings import RewardFitSettings
from tests.train.conftest import _pairs
from train.loop import Progress
from train.reward import fit_reward


def main() -> None:
    settings = RewardFitSettings.model_validate_json(sys.argv[1])
    last_step = int(sys.argv[2])

    def die(progress: Progress) -> None:
        if progress.step == last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    fit_reward(settings, pairs=None if settings.sets else _pairs(60), progress=die)


if __name__ == "__main__":
    main()
