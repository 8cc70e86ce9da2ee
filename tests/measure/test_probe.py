from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import dse.measure.job as job_module
import dse.measure.probe as probe_module
from dse.algorithms import build
from dse.errors import BadInput
from dse.measure.calibrate import calibrate, save_scales
from dse.measure.decoding import Decoding, prompt_of
from dse.measure.free_running import agreement, generate, same_until
from dse.measure.material import DensePass, Window, read_prompt
from dse.measure.probe import Plan, probe
from dse.measure.retrieval import Sheet, ask, sheets
from dse.profiles.probes import Probe, Probes, load_probes, read_probes, write_probes

FLOAT = {"k_bits": 32, "v_bits": 32, "q_bits": 32}


class Letters:
    """A token per character, modulo the tiny model's vocabulary where that is asked for."""

    def __init__(self, bos=None, vocabulary=1 << 20):
        self.bos, self.vocabulary = bos, vocabulary

    def encode(self, text):
        return np.array([ord(c) % self.vocabulary for c in text], np.int64)


def texts(count, length, seed=0):
    rng = np.random.default_rng(seed)
    return [Window(f"t{i}", 0, rng.integers(200, 250, length + 1)) for i in range(count)]


def test_a_sheet_holds_every_answer_once_and_in_order_of_depth():
    for sheet in sheets(Letters(), texts(3, 600), 5, seed=4):
        written = "".join(map(chr, sheet.prompt))
        places = []
        for question, answer in zip(sheet.questions, sheet.answers, strict=True):
            said = "".join(map(chr, [*question, *answer]))
            assert written.count(said) == 1
            assert written.count("".join(map(chr, question))) == 1
            places.append(written.index(said))
        assert places == sorted(places)
        steps = np.diff(places)
        assert (steps == steps[0]).all()
        assert len(sheet.prompt) + sheet.questions.shape[1] + sheet.answers.shape[1] <= 600
        assert written.endswith("\n\n")


def test_sheets_differ_and_come_again_with_the_same_seed():
    one, two = sheets(Letters(), texts(2, 500), 4, 0)
    assert not np.array_equal(one.answers, two.answers)
    again = sheets(Letters(), texts(2, 500), 4, 0)
    assert all(np.array_equal(a.prompt, b.prompt) for a, b in zip((one, two), again, strict=True))
    assert not np.array_equal(sheets(Letters(), texts(1, 500), 4, 1)[0].prompt, one.prompt)


def test_a_context_without_room_says_so():
    with pytest.raises(BadInput, match="no room for 8 sentences"):
        sheets(Letters(), texts(1, 200), 8, 0)


def test_a_tokenizer_that_joins_codes_with_names_is_refused():
    class Words:
        bos = None

        def encode(self, text):
            return np.array([hash(text) % 1000])

    with pytest.raises(BadInput, match="made-up facts"):
        sheets(Words(), texts(1, 400), 2, 0)


def test_decoding_token_by_token_equals_one_pass(model, chosen, folders, scales):
    """Dense in float: the hidden states give the dense pass's probabilities, stateful or not."""
    dense = DensePass.load(folders[0])
    tokens, start = chosen[0].tokens, dense.k.shape[2]
    read = read_prompt(model, tokens[:start])
    assert np.array_equal(read.k, dense.k)
    assert np.array_equal(read.column_sum, dense.column_sum)
    for name, knobs in (
        ("dense", FLOAT),
        ("spatten", {"keep": 1.0, "head_keep": 1.0, "chunks": "12", "front": 1.0}),
    ):
        decoding = Decoding(model, build(name, knobs), prompt_of(model, [read], scales, 64, 64))
        for place in range(start, 64):
            logits = model.logits(decoding.step(tokens[place : place + 1]))[0]
            p = np.exp(logits - logits.max())
            expected = np.exp(dense.log_probabilities[place - start])
            assert np.abs(p / p.sum() - expected).max() < (1e-5 if name == "dense" else 0.05)


def test_sequences_side_by_side_do_not_see_each_other(model, chosen, scales):
    reads = [read_prompt(model, w.tokens[:40]) for w in chosen]
    last = np.array([w.tokens[40] for w in chosen])
    for name, knobs in (("token-picker", {}), ("spatten", {"keep": 0.5}), ("window", {"recent": 8})):
        together = generate(model, build(name, knobs), scales, reads, last, 8, 64)
        alone = [
            generate(model, build(name, knobs), scales, [r], last[i : i + 1], 8, 64)[0]
            for i, r in enumerate(reads)
        ]
        assert np.array_equal(together, alone), name


def test_a_question_is_scored_by_the_tokens_of_the_answer(model, scales):
    rng = np.random.default_rng(0)
    prompt = rng.integers(0, 50, 30)
    read = read_prompt(model, prompt)
    sheet = Sheet(prompt, rng.integers(0, 50, (2, 3)), rng.integers(0, 50, (2, 2)))
    found = ask(model, build("dense", FLOAT), scales, sheet, read, 64)
    for i in range(2):
        fed = np.concatenate([sheet.questions[i], sheet.answers[i]])
        decoding = Decoding(model, build("dense", FLOAT), prompt_of(model, [read], scales, 64, 64))
        loss, right = 0.0, True
        for place in range(4):
            logits = model.logits(decoding.step(fed[place : place + 1]))[0].astype(np.float64)
            if place >= 2:
                p = np.exp(logits - logits.max())
                loss -= np.log(p[fed[place + 1]] / p.sum()) / 2
                right &= bool(logits.argmax() == fed[place + 1])
        assert found.nll[i] == pytest.approx(loss, rel=1e-4)
        assert found.right[i] == right
    said = generate(model, build("dense", FLOAT), scales, [read], sheet.questions[0, :1], 1, 64)
    easy = Sheet(prompt, sheet.questions[:1, :1], said)
    assert ask(model, build("dense", FLOAT), scales, easy, read, 64).right.all()


def test_same_until_and_agreement():
    reference = np.array([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]])
    found = np.array([[1, 2, 3, 4], [1, 9, 3, 4], [9, 9, 9, 9]])
    assert same_until(found, reference).tolist() == [4, 1, 0]
    assert agreement(found, reference).tolist() == [1.0, 0.75, 0.0]


@pytest.fixture
def plan(model, chosen, tmp_path, monkeypatch):
    path = tmp_path / "scales.npz"
    save_scales(path, calibrate(model, chosen))
    long = [Window(f"text{i}", 0, np.random.default_rng(i).integers(0, 50, 321)) for i in range(2)]
    monkeypatch.setitem(vars(model), "tokenizer", Letters(vocabulary=50))
    for module in (job_module, probe_module):
        monkeypatch.setattr(module, "loaded", lambda job: model)
        monkeypatch.setattr(module, "window_texts", lambda job, context, count=0: list(long))
    # The tiny vocabulary makes characters alike: nothing here asks for facts apart from each other.
    settings = (build("dense", FLOAT), build("window", {"recent": 8}))
    job = job_module.Job("tiny", "tiny", settings, (320,), 2, "selection", 0, path, tmp_path)
    return Plan(job, depths=3, tokens=6)


def test_rows_are_kept_as_they_come_and_not_measured_again(plan, tmp_path, monkeypatch):
    path = tmp_path / "probes.json"
    real, calls = probe_module._probe, []

    def dies_at_the_second(*arguments):
        if calls:
            raise KeyboardInterrupt
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(probe_module, "_probe", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        probe(plan, path, 1, lambda *_: None)
    assert len(read_probes(path).rows) == 1
    monkeypatch.setattr(probe_module, "_probe", real)
    table = probe(plan, path, 1, lambda *_: None)
    assert [row.algorithm for row in table.rows] == ["dense", "window"]
    dense, window = table.rows
    assert dense.same == (6, 6)
    assert dense.agree == (1.0, 1.0)
    assert np.array(dense.nll).shape == (2, 3)
    assert min(map(min, window.nll)) >= 0
    monkeypatch.setattr(
        probe_module, "_probe", lambda *arguments: pytest.fail("measured again")
    )  # calling it would fail
    assert probe(plan, path, 1, lambda *_: None) == table


def test_another_material_is_not_mixed_in(plan, tmp_path):
    path = tmp_path / "probes.json"
    probe(plan, path, 1, lambda *_: None)
    before = path.read_bytes()
    with pytest.raises(BadInput, match="another model, text, context"):
        probe(replace(plan, tokens=5), path, 1, lambda *_: None)
    assert path.read_bytes() == before


ROW = Probe("window", {"recent": 8}, ((True, False),), ((0.5, 1.5),), (3,), (0.5,))


def test_a_table_survives_the_disk_and_damage_is_noticed(tmp_path):
    path = tmp_path / "p.json"
    table = Probes("tiny", 320, 6, "abc", {"text": "none"}).having(ROW)
    write_probes(path, table)
    assert read_probes(path) == table
    assert load_probes(str(path)) == table
    path.write_text(path.read_text().replace("1.5", "1.4"))
    with pytest.raises(BadInput, match="damaged"):
        read_probes(path)
    for text in ("", "[]", '{"schema": 99}', json.dumps({"schema": 1})):
        path.write_text(text)
        with pytest.raises(BadInput, match=str(path)):
            read_probes(path)
    with pytest.raises(BadInput, match="no probes of this model ship"):
        load_probes("nothing")


def test_a_row_replaces_the_one_of_its_setting():
    table = Probes("tiny", 320, 6, "abc", {}).having(ROW)
    assert table.having(replace(ROW, same=(4,))).rows == (replace(ROW, same=(4,)),)
    assert len(table.having(replace(ROW, knobs={"recent": 9})).rows) == 2
    assert table.find("window", {"recent": 8}) == ROW
    assert table.find("window", {"recent": 7}) is None
