from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy.exc
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.errors import BadInput
from dse.study.storage import OPENINGS, check_name, open_storage, read_place, unusable

SECRET = "s3cr3t%21word"


@pytest.mark.parametrize(
    ("url", "kind", "shown"),
    [
        ("memory", "memory", "memory"),
        ("journal:some/where.log", "journal", "journal:where.log"),
        ("some/where.log", "journal", "journal:where.log"),
        ("sqlite:///some/where.db", "sqlite", "sqlite:where.db"),
        (f"postgresql://me:{SECRET}@host:5433/db?password=also", "postgresql", "postgresql://host:5433/db"),
        (f"postgres://me:{SECRET}@host/db", "postgresql", "postgresql://host/db"),
        ("grpc://host:13001", "grpc", "grpc://host:13001"),
    ],
)
def test_a_place_is_read_and_shown_without_its_secrets(url: str, kind: str, shown: str) -> None:
    if kind == "postgresql":
        pytest.importorskip("psycopg2", reason="PostgreSQL needs a driver")
    if kind == "grpc":
        pytest.importorskip("grpc", reason="the proxy needs grpcio")
    place = read_place(url)
    assert (place.kind, str(place)) == (kind, shown)
    assert "s3cr3t" not in repr(place)
    assert "also" not in repr(place)


@pytest.mark.parametrize(
    "url",
    [
        "", "postgresql:/me:pw@host", "postgresql://host", "postgresql://me:pw@ho st/db", "postgresql://h:x/db",
        "mysql://me:pw@host/db", "grpc://me:pw@host:1", "sqlite://relative", "redis://:pw@host", "pw", "sqlite:///",
        "postgresql+os://me:pw@host/db", "postgresql://me:pw@h;drop/db", "journal:",
    ],
)  # fmt: skip
def test_a_wrong_place_is_one_line_that_repeats_no_secret(url: str) -> None:
    with pytest.raises(BadInput) as error:
        read_place(url)
    assert "\n" not in str(error.value)
    assert "pw" not in str(error.value)


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=120))
def test_names_are_plain_or_refused(name: str) -> None:
    if name and name.isascii() and len(name) <= 100 and name.replace("-", "a").replace(".", "a").isalnum():
        assert check_name(f"a{name}"[:100]).startswith("a")
    else:
        with pytest.raises(BadInput) as error:
            check_name(f"{name} ")
        assert "\n" not in str(error.value)


def test_errors_of_a_storage_are_scrubbed() -> None:
    pytest.importorskip("psycopg2", reason="PostgreSQL needs a driver")
    place = read_place(f"postgresql://someone:{SECRET}@localhost:1/db")
    error = unusable(place, RuntimeError(f"cannot reach someone:{SECRET} or s3cr3t!word\nat all"))
    assert str(error) == (
        "--storage postgresql://localhost:1/db: cannot be used: cannot reach ***:*** or *** at all"
    )
    with pytest.raises(BadInput) as refused:
        open_storage(place, 60)
    assert "s3cr3t" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_short_secret_is_scrubbed_where_it_stands_alone() -> None:
    pytest.importorskip("psycopg2", reason="PostgreSQL needs a driver")
    place = read_place("postgresql://u:abc@localhost:1/db")
    assert str(unusable(place, RuntimeError("refused u:abc, user u, abcess"))).endswith(
        "cannot be used: refused ***:***, user ***, abcess"
    )


@pytest.mark.parametrize("failures", [1, 9, 10])
def test_an_empty_database_is_opened_again_while_another_process_makes_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    at = read_place(f"sqlite:///{tmp_path}/new.db")
    made = optuna.storages.RDBStorage
    left = [failures]

    def second(*arguments: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            reason = Exception("duplicate key value violates unique constraint")
            raise sqlalchemy.exc.IntegrityError("CREATE TABLE alembic_version", {}, reason)
        return made(*arguments, **options)

    monkeypatch.setattr(optuna.storages, "RDBStorage", second)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    if failures < OPENINGS:
        assert open_storage(at, 60).get_all_studies() == []
    else:
        with pytest.raises(BadInput, match="cannot be used: duplicate key"):
            open_storage(at, 60)
