"""Free-running generation: how long does a model under an algorithm write what the dense model writes?

From the same dense prompt both decode greedily. Scoring given text hides what a wrong word does to the next one;
here every difference stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dse.algorithms.contract import Algorithm, FloatArray, IntArray
from dse.algorithms.quantize import Scales
from dse.measure.decoding import Decoding, prompt_of
from dse.measure.material import ReadPrompt, need_finite
from dse.models.protocol import Model


def generate(
    model: Model,
    algorithm: Algorithm,
    scales: Sequence[Scales],
    read: Sequence[ReadPrompt],
    last: IntArray,
    count: int,
    context: int,
) -> IntArray:
    """[B, count] tokens decoded greedily after prompts that were read densely and the tokens `last` [B] after them."""
    prompt = prompt_of(model, read, scales, capacity=len(read[0].tokens) + count, context=context)
    decoding = Decoding(model, algorithm, prompt)
    out = np.empty((len(last), count), np.int64)
    token = last
    for place in range(count):
        logits = model.logits(decoding.step(token))
        need_finite(model, "logits of the next token", logits)
        token = logits.argmax(axis=-1)
        out[:, place] = token
    return out


def same_until(found: IntArray, reference: IntArray) -> IntArray:
    """[B]: tokens before the first one that differs, over [B, T]; T where none does."""
    differ = found != reference
    return np.asarray(np.where(differ.any(axis=1), differ.argmax(axis=1), differ.shape[1]))


def agreement(found: IntArray, reference: IntArray) -> FloatArray:
    """[B]: share of places with the same token."""
    return np.asarray((found == reference).mean(axis=1))
