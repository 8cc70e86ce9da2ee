"""How long measuring an algorithm takes, against a dense float pass over the same windows in this process.

    python tests/benchmarks/measuring.py [--context 1024] [--windows 2] [ALGORITHM ...]

Prints processor seconds (other programs on the machine disturb them less than the clock) and their ratio to
the dense float pass, which does nothing but attention and the rest of the model: no counters, no comparison.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

SETTINGS = {
    "dense": [{}],
    "token-picker": [{}, {"mode": "breadth"}, {"chunks": "12"}],
    "spatten": [{}, {"value_keep": 0.4}],
    "top-theta": [{}, {"placement": "pre", "sdc": "exact"}],
    "adore": [{"rebuild": 0}, {"rebuild": 4}],
    "a3": [{}, {"search": 2.0}],
    "mnnfast": [{"threshold": 1e-3, "gate": True}, {"threshold": 1e-3, "gate": True, "test": "running"}],
    "quest": [{}],
    "oracle-top-k": [{}],
    "oracle-threshold": [{}],
    "window": [{}],
}


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of one run."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    import numpy as np

    from dse.algorithms import build
    from dse.measure.calibrate import load_scales
    from dse.measure.job import shipped_scales
    from dse.measure.material import DensePass, attention, log_softmax, prepare, windows
    from dse.measure.score import score
    from dse.measure.tables import Setup, provider
    from dse.models.load import load_model
    from dse.models.text import books

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("algorithms", nargs="*", default=list(SETTINGS))
    options = parser.parse_args()
    name = "smollm2-135m"
    model = load_model(name)
    texts = books(model.tokenizer)
    chosen = windows(texts, "selection", options.context, options.windows, 0)
    scales = load_scales(shipped_scales(name))
    with TemporaryDirectory() as folder:
        folders = list(prepare(model, chosen, Path(folder)))

        def dense() -> None:
            for window, place in zip(chosen, folders, strict=True):
                passed = DensePass.load(place)
                prompt = passed.k.shape[2]

                def attend(layer, q, k, v, passed=passed, prompt=prompt):
                    k = np.concatenate([passed.k[layer, None], k], axis=2)
                    v = np.concatenate([passed.v[layer, None], v], axis=2)
                    return attention(q, k, v, prompt)[0]

                positions = np.arange(prompt, len(window.tokens) - 1)
                log_softmax(model.logits(model.run(window.tokens[None, prompt:-1], positions, attend)[0]))

        dense()
        base = seconds(dense)
        print(f"{options.windows} windows of {options.context} tokens, last quarter scored")
        print(f"{'dense float pass':44s} {base:8.2f} s  1.00")
        for algorithm in options.algorithms:
            for knobs in SETTINGS[algorithm]:
                one = build(algorithm, knobs)
                if one.needs:
                    supply = provider(one.needs)
                    setup = Setup(model, name, texts, Path(folder))
                    path = supply.path(one, setup)
                    if not path.exists():
                        supply.make(one, setup, path)
                    one.prepare(supply.load(path))
                taken = seconds(lambda one=one: score(model, one, scales, chosen, folders))
                label = " ".join([algorithm, *(f"{k}={v}" for k, v in knobs.items())])
                print(f"{label:44s} {taken:8.2f} s {taken / base:5.2f}", flush=True)


if __name__ == "__main__":
    main()
