"""Hypothesis draws the same examples every time, so that a failure is one for everybody and none comes by chance;
`pytest --hypothesis-profile=default` draws others.

Tests marked `model` run the real language model. Where its weights are missing they are skipped with the
command that installs them, unless DSE_REQUIRE_MODEL is set: then a missing model is a failure."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("the same", derandomize=True)
settings.load_profile("the same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wanted = [item for item in items if item.get_closest_marker("model")]
    if not wanted or os.environ.get("DSE_REQUIRE_MODEL"):
        return
    from dse.errors import BadInput
    from dse.models.catalog import find_model

    try:
        find_model("smollm2-135m")
    except BadInput as error:
        for item in wanted:
            item.add_marker(pytest.mark.skip(reason=str(error)))
