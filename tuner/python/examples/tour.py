# %% [markdown]
# # A tour: features, classes and a plan of this machine
#
# Run it cell by cell, or as a program. It needs numpy, and no files.

# %%
import tempfile

import numpy as np

import inception_tuner

# %% [markdown]
# Without a file, weights are synthetic. Without a plan, the built-in choice runs, which needs no tuning.

# %%
session = inception_tuner.Session.open(plan=None)
print(session)

# %% [markdown]
# Images of any size are preprocessed as the weights were trained: here, as Keras does.

# %%
random = np.random.default_rng(1)
images = [random.integers(0, 256, (height, 400, 3), dtype=np.uint8) for height in (200, 300, 500)]
output = session(images)
assert output.features.shape == (3, 2048)
print(session.preprocess, output.top(1)[0], sep="\n")

# %% [markdown]
# Preprocessed images are float32, and are not copied.

# %%
values = random.uniform(-1, 1, (4, *session.input_shape)).astype(np.float32)
assert session(values).probabilities.shape == (4, session.classes)

# %% [markdown]
# Tuning measures the kernels of this machine and writes a plan. Half a minute is enough for the whole
# network; here it is one block and a second. Sessions find the plan by themselves.

# %%
with tempfile.TemporaryDirectory() as results:
    plan = inception_tuner.tune(model="mixed10", threads=1, budget=1, results=results)
    block = inception_tuner.Session.open(model="mixed10", threads=1, results=results)
    assert block.plan == plan
