"""features_ray.py with a worker that the system kills in its first batch: `killed_worker.py LOG IMAGES OUT ..`.

LOG gets a line for each batch that is begun. The folder of the examples is in PYTHONPATH.
"""

import os
import signal
import sys

import features_ray


class Mortal(features_ray.Features):
    def __init__(self, log, **arguments):
        super().__init__(**arguments)
        self.log = log

    def __call__(self, batch):
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(f"{sorted(batch.column('path').to_pylist())}\n")
        try:
            os.close(os.open(f"{self.log}.killed", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return super().__call__(batch)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    log = sys.argv.pop(1)

    class Logged(Mortal):
        def __init__(self, **arguments):
            super().__init__(log, **arguments)

    features_ray.Features = Logged
    features_ray.main()
