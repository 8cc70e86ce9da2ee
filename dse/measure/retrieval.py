"""Key-value retrieval by depth: does a model under an algorithm still find what it read long ago?

A sheet is a window of text with paragraphs put into it at even distances, "The code of Bako is 4821.", every name and
code made up. It is read densely, as the prompt of a decode measurement; then the algorithm runs over the opening of
one of those sentences and the model must say the code. Depth 0 is the oldest sentence, 1 the newest; a question
follows the text at once. Guessing digits costs ln 10 = 2.3 nats each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from dse.algorithms.contract import Algorithm, FloatArray, IntArray
from dse.algorithms.quantize import Scales
from dse.errors import BadInput
from dse.measure.decoding import Decoding, prompt_of
from dse.measure.material import ReadPrompt, Window, log_softmax, need_finite
from dse.models.protocol import Model

OPENING: Final = "The code of {name} is"
CODE: Final = " {code}"
SENTENCE: Final = OPENING + CODE + "."
PARAGRAPH: Final = "\n\n"
CONSONANTS: Final = "bdfgklmnprstvz"
VOWELS: Final = "aeiou"
LEAST_TEXT: Final = 8
"""Tokens of text that must lie between two sentences."""


class Encoder(Protocol):
    """What is asked of a tokenizer."""

    bos: int | None

    def encode(self, text: str) -> IntArray:
        """Token ids."""
        ...


@dataclass(frozen=True)
class Fact:
    """Tokens of a sentence's opening, of the code after it, and of the whole."""

    opening: IntArray
    code: IntArray
    sentence: IntArray

    @property
    def lengths(self) -> tuple[int, int, int]:
        return len(self.opening), len(self.code), len(self.sentence)


@dataclass(frozen=True)
class Sheet:
    """One prompt and its questions.

    Attributes:
        prompt: [P] tokens.
        questions: [D, Q] tokens of the opening of the sentence at each depth, oldest first.
        answers: [D, A] tokens that must follow.
    """

    prompt: IntArray
    questions: IntArray
    answers: IntArray


def sheets(tokenizer: Encoder, chosen: Sequence[Window], depths: int, seed: int) -> list[Sheet]:
    """One sheet per window of text, as long as the window, question and answer included.

    Raises:
        BadInput: the windows are too short for so many sentences, or the tokenizer cannot keep codes apart.
    """
    context = len(chosen[0].tokens) - 1
    facts = _facts(tokenizer, np.random.default_rng([seed, context]), len(chosen) * depths)
    opening, code, sentence = facts[0].lengths
    gap = tokenizer.encode(PARAGRAPH)
    each = (context - opening - code - len(gap)) // depths - sentence - 2 * len(gap)
    if each < LEAST_TEXT:
        raise BadInput(
            f"context {context}: no room for {depths} sentences of {sentence} tokens with text between them; "
            "ask at fewer depths or in a longer context"
        )
    out = []
    for number, window in enumerate(chosen):
        mine = facts[number * depths : (number + 1) * depths]
        pieces = [window.tokens[:1]]  # the model's own first token, where it expects one
        for place, fact in enumerate(mine):
            text = window.tokens[1 + place * each : 1 + (place + 1) * each]
            pieces += [gap, fact.sentence, gap, text]
        out.append(
            Sheet(
                prompt=np.concatenate([*pieces, gap]),
                questions=np.stack([fact.opening for fact in mine]),
                answers=np.stack([fact.code for fact in mine]),
            )
        )
    return out


def _facts(tokenizer: Encoder, rng: np.random.Generator, count: int) -> list[Fact]:
    """`count` facts, the parts of each as many tokens long as those of any other. Raises `BadInput`."""
    names = [
        f"{a}{b}{c}{d}".capitalize() for a in CONSONANTS for b in VOWELS for c in CONSONANTS for d in VOWELS
    ]
    rng.shuffle(names)
    found = []
    for name in names[: 4 * count]:
        words = {"name": name, "code": int(rng.integers(1000, 10000))}
        opening, said, whole = (
            tokenizer.encode(text.format(**words)) for text in (OPENING, OPENING + CODE, SENTENCE)
        )
        kept = np.array_equal(said[: len(opening)], opening) and np.array_equal(whole[: len(said)], said)
        if kept and 0 < len(opening) < len(said):
            found.append(Fact(opening, said[len(opening) :], whole))
    usual = Counter(fact.lengths for fact in found).most_common(1)
    facts = [fact for fact in found if fact.lengths == usual[0][0]][:count] if usual else []
    if len(facts) < count:
        raise BadInput(
            f"retrieval: {len(facts)} made-up facts of the same length in this tokenizer, {count} are needed; "
            "ask for fewer windows or depths"
        )
    return facts


@dataclass(frozen=True)
class Answers:
    """What came of one sheet's questions, each [D]: said right (every token the likeliest), and nats per token."""

    right: NDArray[np.bool_]
    nll: FloatArray


def ask(
    model: Model, algorithm: Algorithm, scales: Sequence[Scales], sheet: Sheet, read: ReadPrompt, context: int
) -> Answers:
    """All questions of one sheet, side by side; `read` is the dense pass over its prompt."""
    depths, asked = sheet.questions.shape
    fed = np.concatenate([sheet.questions, sheet.answers], axis=1)
    prompt = prompt_of(
        model, [read] * depths, scales, capacity=len(read.tokens) + fed.shape[1], context=context
    )
    decoding = Decoding(model, algorithm, prompt)
    right, nll = np.ones(depths, bool), np.zeros(depths)
    for place in range(fed.shape[1] - 1):
        hidden = decoding.step(fed[:, place])
        if place + 1 < asked:
            continue
        log_p = log_softmax(model.logits(hidden))
        need_finite(model, "probabilities of the next token", log_p)
        target = fed[:, place + 1]
        right &= log_p.argmax(axis=-1) == target
        nll -= log_p[np.arange(depths), target]
    return Answers(right, nll / sheet.answers.shape[1])
