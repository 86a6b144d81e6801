"""Benchmark on a GPU: floors, turns, kernels sorted into parts; all of it runs emulated, too."""

import json
import re

import numpy as np
import pytest
from rich.console import Console

from minigpt2.model.config import OFFICIAL, GPT2Config
from tests.benchmarks.gpu import __main__ as bench
from tests.benchmarks.gpu import decode, profile, report
from tests.benchmarks.gpu.cards import Card, card_of
from tests.benchmarks.gpu.floors import Load, Rates, floors_of, loads_of
from tests.benchmarks.gpu.jobs import (
    FIXED,
    FULL,
    JOBS,
    SHORT,
    VARYING,
    Effort,
    groups_of,
    plan_of,
)
from tests.benchmarks.gpu.kernel_times import Interval, covered, summary
from tests.benchmarks.gpu.race import Race, summed_up, timed_steps
from tests.benchmarks.peers import worker
from tests.benchmarks.peers.jobs import MODELS, dense, forest_of
from tests.benchmarks.work import operations
from tests.kernels.support import needs_compiler

H200 = Rates(790e12, 4.8e12)
LITTLE = Effort(turns=1, steps=2, warm_fixed=4, warm_varying=4, profiled=1, compiled="all")
NANO = GPT2Config(vocab_size=512, n_positions=64, n_embd=64, n_layer=2, n_head=2)


@pytest.fixture
def questions(tmp_path):
    """A few questions."""
    path = tmp_path / "questions.json"
    entries = [{"instruction": f"Say {n}.", "output": str(n)} for n in range(4)]
    path.write_text(json.dumps(entries))
    return path


def floor_of(model, rows):
    """The milliseconds of a dense step's parts on an H200."""
    job = dense(rows, 1024, 1, model)
    floors = floors_of(job.config, forest_of(job.batches[0]), 2, H200)
    return {part: 1e3 * seconds for part, seconds in floors.items()}


def test_floors_of_dense_steps_are_those_counted_by_hand():
    gpt2, large = floor_of("gpt2", 8), floor_of("gpt2-large", 4)
    n, c, v = 8 * 1023, 768, 50257
    assert gpt2["products of the blocks"] == pytest.approx(72 * 12 * c * c * n / 790e9)
    assert gpt2["products with the vocabulary"] == pytest.approx(6 * v * c * n / 790e9)
    pairs = 8 * 1023 * 1024 / 2
    attention = gpt2["attention, forward"] + gpt2["attention, backward"]
    assert attention == pytest.approx(14 * 12 * c * pairs / 790e9)
    assert gpt2["layer norm"] == pytest.approx(25 * 6 * n * c * 2 / 4.8e9)
    assert gpt2["GELU"] == pytest.approx(12 * 20 * n * c * 2 / 4.8e9)
    assert gpt2["cross-entropy"] == pytest.approx(4 * n * v / 4.8e9)
    assert gpt2["AdamW and norm"] == pytest.approx(34 * OFFICIAL["gpt2"].n_parameters / 4.8e9)
    assert sum(gpt2.values()) == pytest.approx(10.6, abs=0.05)
    assert sum(large.values()) == pytest.approx(33.9, abs=0.05)


def test_a_load_takes_the_longer_of_its_operations_and_its_bytes():
    rates = Rates(operations=10, memory=2)
    assert Load(100, 2).seconds(rates) == 10
    assert Load(100, 30, times=3).seconds(rates) == 45


def test_the_loads_have_the_operations_that_a_step_is_counted_with(questions):
    plan = plan_of("tiny/bfloat16/batch4", questions, LITTLE)
    batch = forest_of(plan.job.batches[0])
    loads = loads_of(plan.job.config, batch, 2)
    counted = sum(load.times * load.operations for own in loads.values() for load in own)
    assert counted == pytest.approx(sum(operations(plan.job.config, batch).values()))


def test_every_job_has_batches_for_all_its_steps(questions):
    for effort in (FULL, SHORT):
        for spec in JOBS:
            plan = plan_of(spec, questions, effort)
            numbers = timed_steps(plan, effort.turns, effort.steps)
            assert len(numbers) == effort.turns * (effort.steps - 1)
            assert len(plan.job.batches) == numbers[-1] + 1 + effort.profiled
            assert plan.varying == ("batch" in spec) and (not plan.varying or plan.warm == 25)


def test_a_short_run_compiles_only_where_it_wins_most(questions):
    compiled = {}
    for spec in JOBS:
        names = plan_of(spec, questions, SHORT).contenders
        compiled[spec] = any("compiled" in name for name in names)
    assert list(compiled.values()) == [True, True, False, False]
    assert [plan_of(s, questions, FULL).contenders for s in JOBS] == [FIXED, FIXED, VARYING, FIXED]


def test_contenders_live_together_only_where_the_memory_suffices(questions):
    plan = plan_of("gpt2-large/bfloat16/4x1024", questions, FULL)
    assert groups_of(plan, 139e9) == [FIXED]
    assert groups_of(plan, 78e9) == [("ours", peer) for peer in FIXED[1:]]


class Waits:
    """A contender without a process: each answer is the next of a list."""

    def __init__(self, losses):
        self.losses, self.ended = iter(losses), False

    def ask(self, call, number):
        return [(next(self.losses), 1.0 + k) for k in range(number)]

    def begin(self, call, number):
        self.asked = call, number

    def answer(self):
        return self.ask(*self.asked)

    def end(self):
        self.ended = True


def race_of(plan, said, **workers):
    """A race between contenders without processes."""
    race = Race.__new__(Race)
    race.plan, race.say = plan, said.append
    race.workers, race.measured = workers, {name: {} for name in workers}
    return race


def test_a_contender_with_other_losses_is_left_out(questions):
    plan, said = plan_of("tiny/float32/1x8", questions, LITTLE), []
    same, other = [5.0, 4.0, 3.0, 2.0, 1.0], [5.0, 4.0, 3.0, 2.001, 1.0]
    race = race_of(plan, said, ours=Waits(same), peer=Waits(same), liar=Waits(other))
    liar = race.workers["liar"]
    race.compare()
    assert list(race.workers) == ["ours", "peer"] and liar.ended
    assert "2.001" in race.measured["liar"]["failed"] and any("liar" in line for line in said)


def test_the_first_step_of_a_turn_does_not_count(questions):
    plan, said = plan_of("tiny/float32/1x8", questions, LITTLE), []
    race = race_of(plan, said, ours=Waits([0.0] * 100))
    race.take_turns(3, 3)
    assert race.measured["ours"]["seconds"] == [2.0, 3.0] * 3


def test_times_hold_where_the_profiler_fails(questions):
    class Unprofiled(Waits):
        def ask(self, call, *number):
            if call == "memory":
                return 7
            if call == "kernels":
                raise bench.UserError("no CUPTI")
            return super().ask(call, *number)

    plan, said = plan_of("tiny/float32/1x8", questions, LITTLE), []
    race = race_of(plan, said, ours=Unprofiled([0.0] * 10), peer=Unprofiled([0.0] * 10))
    race.take_turns(1, 2)
    race.finish(("ours",), 1)
    ours = summed_up(plan, race.measured["ours"], race.measured["ours"], [5], [1.0])
    assert ours["median"] == 2 and ours["no_kernels"] == "no CUPTI" and "idle" not in ours
    assert race.measured["peer"]["peak_memory"] == 7 and "no_kernels" not in race.measured["peer"]


def test_weights_are_kept_for_the_next_run(tmp_path):
    config = dense(1, 2, 1, "tiny").config
    with bench.weights_folder(tmp_path / "kept") as folder:
        bench.Weights(folder, config, "tiny").make()
    file = tmp_path / "kept/tiny/model.safetensors"
    written = file.stat().st_mtime_ns
    bench.Weights(tmp_path / "kept", config, "tiny").make()
    assert file.stat().st_mtime_ns == written


def test_ratios_are_those_of_the_same_step(questions):
    plan = plan_of("tiny/float32/1x8", questions, LITTLE)
    measured, ours = {"seconds": [2.0, 9.0, 8.0], "busy": 2.0}, {"seconds": [1.0, 3.0, 2.0]}
    row = summed_up(plan, measured, ours, [4, 5, 6], [1.0, 1.0, 2.0])
    assert row["times_ours"] == 3 and row["median"] == 8 and row["spread"] == [2, 9]
    assert row["mean"] == pytest.approx(19 / 3)
    assert row["tokens_per_second"] == 1 and row["share_of_floor"] == 0.25
    assert row["idle"] == 0.75
    assert summed_up(plan, {"failed": "x"}, ours, [], []) == {"failed": "x"}


@pytest.mark.long
@needs_compiler
def test_the_whole_benchmark_runs_emulated(monkeypatch, tmp_path, questions, capsys):
    monkeypatch.setitem(MODELS, "nano", NANO)
    monkeypatch.setattr(bench, "FULL", LITTLE)
    path = tmp_path / "numbers.json"
    names = ["ours", worker.BARE, *(["PyTorch, packed"] if bench.find_spec("torch") else [])]
    jobs = ["nano/float32/1x6", "nano/bfloat16/batch1"]
    options = ["--device", "emulated", "--data", str(questions), "--json", str(path)]
    assert bench.main([*options, "--jobs", *jobs, "--contenders", *names]) == 0
    results = json.loads(path.read_text())
    assert [result["spec"] for result in results] == jobs
    for result in results:
        assert list(result["contenders"]) == names
        for row in result["contenders"].values():
            assert len(row["seconds"]) == 1 and row["median"] > 0 and row["peak_memory"] > 0
            assert row["floor"] > 0 and row["times_ours"] > 0
    shown = capsys.readouterr().out
    assert ("losses agree to" in shown) == ("PyTorch, packed" in names)
    assert "TF32 off" in shown and "card idle" in shown


def test_without_a_gpu_it_says_so_in_one_line(monkeypatch, capsys):
    monkeypatch.setitem(bench.sys.modules, "cupy", None)
    for program in (bench, decode, profile):
        assert program.main(["--device", "cuda"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@needs_compiler
def test_a_contender_that_fails_says_why_and_one_that_waits_too_long_is_ended(tmp_path):
    job = dense(1, 4, 1, "tiny")
    how = worker.How(1, "cpu")
    fails = worker.Worker("ours", str(tmp_path / "nowhere"), job, how)
    with pytest.raises(bench.UserError, match="nowhere"):
        fails.build()
    fails.end()
    slow = worker.Worker("ours", str(tmp_path), job, how, patience=0.01)
    with pytest.raises(bench.UserError, match="no answer within"):
        slow.build()
    slow.end()


# The card.


class Properties:
    """An array library that names its card."""

    def __init__(self, name):
        self.name = name


def test_a_card_is_that_of_its_data_sheet(monkeypatch):
    from tests.benchmarks.gpu import cards

    monkeypatch.setattr(cards, "describe_device", lambda library: f"{library.name}: CuPy 14")
    monkeypatch.setattr(cards, "measured_rates", lambda *of: Rates(700e12, 4.2e12))
    card = card_of(Properties("NVIDIA H200"), "bfloat16")
    assert card.promised == Rates(989e12, 4.8e12) and card.rates == Rates(700e12, 4.8e12)
    assert (
        "NVIDIA H200: bfloat16 products at 700 (989 by the data sheet) TFLOP/s"
        in card.described("bfloat16")
    )
    assert card_of(Properties("NVIDIA H100 80GB HBM3"), "float32").rates.memory == 3.35e12
    other = card_of(Properties("A card"), "float32")
    assert other.promised is None and other.rates == Rates(700e12, 4.2e12)


@needs_compiler
def test_rates_are_measured_on_the_device(monkeypatch):
    rates = card_of(bench.open_device("emulated"), "float32").measured
    assert rates.operations > 0 and rates.memory > 0


# Time by kernel.


def test_times_of_a_step_are_means_and_overlaps_count_once():
    intervals = [
        Interval("a", 0, 10),
        Interval("b", 5, 12),
        Interval("a", 20, 24),
        Interval("b", 21, 23),
    ]
    assert covered(intervals) == 16
    times = summary(intervals, 2, 1.0)
    assert times.kernels == {"a": (1, 7), "b": (1, 4.5)}
    assert times.busy == pytest.approx(8e-6) and times.wall == 0.5


def test_every_kernel_belongs_to_a_part_with_its_floor():
    config, rates = OFFICIAL["gpt2"], H200
    job = dense(8, 1024, 1, "gpt2")
    names = {
        "attention_mma_forward": "attention, forward",
        "attention_delta": "attention, backward",
        "layer_norm_backward": "layer norm",
        "gelu_forward": "GELU",
        "cross_entropy": "cross-entropy",
        "squares": "AdamW and norm",
        "embedding_forward": "embedding",
        "nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NTT": profile.PRODUCTS,
        "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm>(Params)": profile.PRODUCTS,
        "Memcpy DtoH (Device -> Pageable)": profile.OTHER,
    }
    loads = loads_of(config, forest_of(job.batches[0]), 2)
    least = sum(load.seconds(rates) for own in loads.values() for load in own)
    parts = profile.parts_of(dict.fromkeys(names, (2, 500.0)), loads, rates)
    for name, part in names.items():
        assert name in parts[part].kernels
    assert sum(part.floor for part in parts.values()) == pytest.approx(least)
    shown = Console(width=150)
    with shown.capture() as text:
        shown.print(profile.table_of(parts, "a step", 0.005))
    assert all(profile.short(name) in text.get() for name in names)
    assert "cutlass::Kernel2<" in text.get() and "Params" not in text.get()
    many = {f"gemm_{n}": (1, 10.0) for n in range(profile.MOST + 3)}
    loads = loads_of(config, forest_of(job.batches[0]), 2)
    with shown.capture() as text:
        shown.print(profile.table_of(profile.parts_of(many, loads, rates), "a step", 0.005))
    assert re.search(r" 3 others +3\.0 +10\.0 +0\.030", text.get())


def test_a_profile_shows_busy_and_wall(monkeypatch, tmp_path, questions, capsys):
    class Measured(Race):
        def __init__(self, plan, names, *how):
            self.measured = {profile.OURS: {"seconds": [0.020], "busy": 0.015}}

        def compare(self):
            self.measured[profile.OURS]["kernels"] = {"gelu_forward": (12, 2000.0)}

        take_turns = finish = end = lambda *how: None

    monkeypatch.setattr(profile, "Race", Measured)
    monkeypatch.setattr(profile, "find_spec", lambda name: True)
    monkeypatch.setattr(profile, "open_device", lambda device: np)
    monkeypatch.setattr(profile, "card_of", lambda *what: Card("a card", H200, None))
    path = tmp_path / "profile.json"
    options = ["tiny/bfloat16/1x8", "--steps", "2", "--json", str(path)]
    assert profile.main(options) == 0
    shown = capsys.readouterr().out
    assert "GPU busy 15.00 ms of 20.00" in shown and "gelu_forward" in shown
    assert json.loads(path.read_text())[0]["idle"] == pytest.approx(0.25)


# Decoding.


def test_the_floor_of_a_token_reads_weights_and_cache_once():
    config = OFFICIAL["gpt2"]
    job = decode.job_of(config, 32, 32, 129)
    weights = 2 * (config.n_parameters - 1024 * 768)
    cache = 2 * 2 * 12 * 768 * 32 * (32 + 64)
    assert decode.floor_of(job, 2, H200) == pytest.approx((weights + cache) / 4.8e12)
    assert {len(prompt) for prompt in job.prompts} == {32} and len(job.prompts) == 32


def test_in_16_bits_few_sequences_may_begin_with_other_tokens():
    least = [decode.least_agreement(p, n) for p in ("float32", "bfloat16") for n in (1, 32)]
    assert least == [0.9, 0.9, 0, 0.5]


@pytest.mark.long
@needs_compiler
def test_the_whole_decoding_runs_emulated(tmp_path, capsys):
    path = tmp_path / "numbers.json"
    peers = ["decode: PyTorch, fixed cache"] if bench.find_spec("torch") else []
    options = ["--device", "emulated", "--model", "tiny", "--precision", "float32"]
    options += ["--prompt", "3", "--tokens", "2", "--sequences", "2", "--rounds", "1"]
    names = [decode.OURS, *peers]
    assert decode.main([*options, "--json", str(path), "--contenders", *names]) == 0
    (result,) = json.loads(path.read_text())
    for row in result["contenders"].values():
        assert row["same"] == 1 and row["tokens_per_second"] > 0 and row["share_of_floor"] > 0
    assert "same tokens" in capsys.readouterr().out


def test_a_contender_that_generates_something_else_is_left_out(monkeypatch, tmp_path):
    class Says:
        def __init__(self, name, *how):
            self.tokens = [[1, 2], [3, 4]] if name != "liar" else [[1, 2], [9, 4]]

        def step(self):
            return self.tokens, 1.0

        begin_build = end = lambda self: None

    monkeypatch.setattr(decode, "Worker", Says)
    options, said = decode.arguments().parse_args(["--rounds", "2"]), []
    job = decode.job_of(OFFICIAL["gpt2"], 2, 4, 2)
    names = (decode.OURS, "peer", "liar")
    how = worker.How(1)
    measured = decode.race(job, names, tmp_path, how, options, said.append)
    decode.summed_up(job, measured, 0.1)
    assert measured["peer"]["times_ours"] == 1 and measured["peer"]["tokens_per_second"] == 4
    assert "50%" in measured["liar"]["failed"] and "median" not in measured["liar"]


# The tables of the pages.


@pytest.mark.parametrize("kind", report.PLACES)
def test_a_page_has_the_table_of_what_was_measured(kind):
    page, begin, _ = report.PLACES[kind]
    text = page.read_text()
    assert text.count(begin) == 1
    assert report.page_with(text, kind, report.measured().get(kind, [])) == text


CARD = {"name": "A card"}
TIMED = {"tokens_per_second": 1000.0, "peak_memory": 2e9, "floor": 0.01, "share_of_floor": 0.5}


@pytest.fixture
def pages(monkeypatch, tmp_path):
    """Pages of their own, and no numbers."""
    monkeypatch.setattr(report, "KEPT", tmp_path / "kept.json")
    places = {}
    for kind, (_, begin, table) in report.PLACES.items():
        page = tmp_path / f"{kind}.md"
        page.write_text(f"before\n\n{begin}{report.END}\nbehind\n")
        places[kind] = page, begin, table
    monkeypatch.setattr(report, "PLACES", places)
    return {kind: page for kind, (page, _, _) in places.items()}


def test_what_was_measured_is_written_into_the_pages(pages, tmp_path):
    rows = {
        "ours": {"median": 0.02, **TIMED, "times_ours": 1.0},
        worker.BARE: {"median": 0.015, **TIMED, "times_ours": 0.75},
        "PyTorch, padded": {"median": 0.06, **TIMED, "times_ours": 3.0},
        "PyTorch, packed": {"median": 0.05, **TIMED, "times_ours": 2.5},
        "PyTorch, packed, compiled": {"failed": "no compiler"},
    }
    decoding = {
        decode.OURS: {"median": 1.0, **TIMED},
        "decode: transformers": {"median": 2.0, **TIMED, "tokens_per_second": 500.0},
    }
    results = {
        "training": [{"job": "gpt2, dense", "card": CARD, "contenders": rows}],
        "decoding": [
            {"model": "gpt2", "precision": "float32", "sequences": n, "card": CARD}
            | {"contenders": decoding}
            for n in (1, 32)
        ],
        "profile": [
            {"job": "gpt2, dense", "card": CARD, "median": 0.02, "busy": 0.016}
            | {"parts": {"GELU": [0.004, 0.003], "products": [0.012, 0.01]}}
        ],
    }
    arguments = []
    for kind, numbers in results.items():
        (tmp_path / f"{kind}.json").write_text(json.dumps(numbers))
        arguments += [f"--{kind}", str(tmp_path / f"{kind}.json")]
    assert report.main(arguments) == 0
    training = pages["training"].read_text()
    assert (
        "| gpt2, dense | 20.0 | 1,000 | 2.0 | 10.0 | 50% | packed | 50.0 | 2.0 | 2.50 |" in training
    )
    assert training.startswith("before\n") and training.endswith("\nbehind\n")
    assert "gpt2, float32, 32 sequences | 1,000 | 50% | 500 |" in pages["decoding"].read_text()
    profiled = pages["profile"].read_text()
    assert (
        "| GELU | 4.00 | 3.00 | 75% |" in profiled
        and "| GPU busy | 16.00 | 13.00 | 81% |" in profiled
    )
    assert report.main([]) == 0
    pages["profile"].write_text(profiled.replace("4.00", "3.00"))
    assert report.main([]) == 1 and pages["profile"].read_text() == profiled
