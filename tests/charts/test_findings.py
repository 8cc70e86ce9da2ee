from __future__ import annotations

import pandas as pd
import pytest

from charts.conftest import made_front
from dse.charts.findings import abbreviations, gains, sentence, short_knobs, varying


def test_each_algorithm_meets_the_best_dense_point_of_the_same_budget(front: pd.DataFrame) -> None:
    by_name = {g.algorithm: g for g in gains(front, 0.01)}
    assert list(by_name) == ["dense", "token-picker", "spatten"]
    assert by_name["dense"].gain == pytest.approx(1.0)
    assert by_name["token-picker"].gain == pytest.approx(2.4 / 1.5)  # dense at 8 bits is the rival, not at 12
    assert by_name["spatten"].gain == pytest.approx(0.9 / 1.5)


def test_an_algorithm_without_a_point_in_the_budget_has_no_gain(front: pd.DataFrame) -> None:
    spatten = next(g for g in gains(front, 0.003) if g.algorithm == "spatten")
    assert spatten.point is None
    assert spatten.gain is None


def test_the_sentence_names_who_pays_who_does_not_and_what_it_means_for_a_token(front: pd.DataFrame) -> None:
    assert sentence(front) == (
        "At 0.01 nats per token: token-picker 1.60x over the best dense (8-bit), spatten does not pay here "
        "(0.60x); of a whole step that is 1.03x, attention being 12% of it under dense."
    )


def test_a_sentence_does_not_praise_what_loses_to_dense() -> None:
    text = sentence(made_front(scale=0.4))
    assert "token-picker does not pay here (0.64x of the best dense (8-bit))" in text
    assert "whole step" not in text


def test_a_sentence_says_where_sparsity_pays_when_it_does_not_here(front: pd.DataFrame) -> None:
    slow = front.copy()
    sparse = slow["algorithm"] != "dense"
    slow.loc[sparse, "speedup"] *= 0.4
    slow["best_dense_as_accurate"] = True
    slow["speedup_best_dense"] = 0.9
    assert sentence(slow).endswith("; nor does any sparse point up to 0.1.")
    row = slow.index[sparse & (slow["nll_increase"] <= 0.1)][-1]
    slow.loc[row, "speedup_best_dense"] = 1.2
    name, loss = slow.loc[row, "algorithm"], slow.loc[row, "nll_increase"]
    assert sentence(slow).endswith(
        f"; the most one gains up to 0.1 is 1.20x, {name} at a loss of {loss:.2g}."
    )
    slow.loc[row, "best_dense_as_accurate"] = False
    assert "anywhere" not in sentence(slow)


def test_a_sentence_says_when_nothing_stays_within_the_budget(front: pd.DataFrame) -> None:
    assert "no setting of spatten stays within it" in sentence(front, 0.003)


def test_the_budget_grows_until_a_sparse_setting_stays_within_it(front: pd.DataFrame) -> None:
    lossy = front[(front["algorithm"] == "dense") | (front["nll_increase"] > 0.02)]
    text = sentence(lossy)
    assert text.startswith(
        "No sparse setting stays within 0.01 nats per token; at 0.1: token-picker 1.60x over"
    )


@pytest.mark.parametrize(
    ("keep", "text"),
    [
        (["token-picker"], "the space has no dense points"),
        (["dense"], "the space has no other algorithm"),
        ([], "No point of this space meets its constraints."),
    ],
)
def test_spaces_that_lack_one_side(front: pd.DataFrame, keep: list[str], text: str) -> None:
    assert text in sentence(front[front["algorithm"].isin(keep)])


def test_knobs_in_short_words_without_and_numbers_with_their_names(front: pd.DataFrame) -> None:
    row = front[front["algorithm"] == "token-picker"].iloc[0]
    columns = ["token-picker.threshold", "token-picker.chunks"]
    assert short_knobs(row, {c: c.partition(".")[2] for c in columns}) == "threshold=1e-4 4+4+4"
    assert short_knobs(row, abbreviations(columns)) == "t=1e-4 4+4+4"


def test_equal_operand_widths_are_one_word(front: pd.DataFrame) -> None:
    names = {"dense.k_bits": "k_bits", "dense.v_bits": "v_bits"}
    assert short_knobs(front.iloc[3], names) == "8-bit"
    assert short_knobs({"dense.k_bits": 8, "dense.v_bits": 6}, names) == "k_bits=8 v_bits=6"


def test_abbreviations_are_unique() -> None:
    short = abbreviations(["a.keep", "a.key", "a.lag", "a.k"])
    assert short == {"a.keep": "kee", "a.key": "key", "a.lag": "l", "a.k": "k"}


def test_only_what_varies_is_shown(front: pd.DataFrame) -> None:
    assert varying(front, "token-picker.") == ["token-picker.threshold"]
    assert varying(front, "hardware.") == []
