from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from dse.errors import BadInput
from dse.profiles.naming import PARTS, TEXTS, ProfileName
from dse.profiles.profile import PHASES
from dse.profiles.store import load_profile, shipped_profiles


def test_the_usual_is_left_out() -> None:
    assert str(ProfileName("smollm2-135m")) == "smollm2-135m"
    assert str(ProfileName("gemma-3-270m", part="confirmation")) == "gemma-3-270m-confirmation"
    assert str(ProfileName("m", "code", "confirmation", "prefill")) == "m-code-confirmation-prefill"


@pytest.mark.parametrize("model", ["smollm2-135m", "gemma-3-270m", "tiny", "code"])
def test_a_name_reads_back(model: str) -> None:
    for text, part, phase in itertools.product(TEXTS, PARTS, PHASES):
        name = ProfileName(model, text, part, phase)
        assert ProfileName.parse(str(name)) == name


def test_a_sibling_differs_in_one_part() -> None:
    name = ProfileName.parse("smollm2-135m-prefill")
    assert str(replace(name, part="confirmation")) == "smollm2-135m-confirmation-prefill"


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(BadInput, match="part 'confirm'; did you mean 'confirmation'"):
        ProfileName("m", part="confirm")


def test_shipped_profiles_keep_the_rule() -> None:
    for name in shipped_profiles():
        profile, parts = load_profile(name), ProfileName.parse(name)
        assert str(parts) == name == profile.name
        assert parts.phase == profile.phase
        assert parts.model == profile.provenance.model
        assert f"{parts.part} part" in profile.provenance.text


def test_the_texts_are_those_that_come_with_the_models() -> None:
    known = pytest.importorskip("dse.models.text").TEXTS
    assert set(TEXTS) == set(known)
