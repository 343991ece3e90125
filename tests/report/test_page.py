"""What the page says of a run, read as it was written."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluations import evaluation

from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.presets import PRESETS
from cars_hw.errors import InputError
from cars_hw.evolution.halving import Rungs
from cars_hw.evolution.nominees import Nominee
from cars_hw.export.card import CardLatency, card_path, verified_card
from cars_hw.formatting import milliseconds
from cars_hw.latency import LatencyTable, Predictor
from cars_hw.latency.sustained import LoadedNetwork, SustainedState
from cars_hw.measurement.states import Machine, MachineState
from cars_hw.measurement.sustained import Sustained
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.records import FinalStage, RunAbout, Verified
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.run_formats import RUN
from cars_hw.report.data import Candidate, ReportData, RunTarget, gather
from cars_hw.report.page import SECTIONS, page, section, write_report
from cars_hw.report.sections.answer import best_model, choices
from cars_hw.significance import wilson_interval
from cars_hw.space.genotype import Genotype
from cars_hw.space.zoo import zoo
from cars_hw.studies.ranking import Ranked, Ranking

MakeRun = Callable[..., RunFolder]

NAUGHTY = "<script>alert('&')</script>\" onload='\"><b>{{ 1 }}"


class Reader(HTMLParser):
    """Collects ids, links, and whether every element that was begun has ended."""

    VOID = ("meta", "input", "path", "circle", "rect", "br")

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts = 0
        self.attributes: set[str] = set()
        self.feed(content)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = dict(attributes)
        self.attributes |= set(known)
        self.ids += [known["id"] or ""] if "id" in known else []
        self.links += [known["href"] or ""] if "href" in known else []
        self.scripts += tag == "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        # A circle that holds its title has an end.
        if tag not in self.VOID:
            assert self.open.pop() == tag


def row(name: str, ms: float, accuracy: float | None, within: bool | None = True, device: str = "ort") -> Verified:
    limit_ms = None if within is None else 100.0 if within else 0.001
    return Verified(name, device, "fp32", 1, accuracy, 1000, None, None, limit_ms, ms, 0.0)


def test_the_page_is_whole_and_every_link_leads_somewhere(run: RunFolder) -> None:
    path = write_report(run)
    reader = Reader(path.read_text(encoding="utf-8"))
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    assert {one.name for one in SECTIONS} <= set(reader.ids)
    assert {f"net-{n:02d}" for n in range(1, 6)} <= set(reader.ids)
    for link in reader.links:
        assert link[1:] in reader.ids if link.startswith("#") else (path.parent / link).is_file()
    assert "models/net-05.onnx" in reader.links


def test_the_answer_comes_first_with_its_file(run: RunFolder) -> None:
    content = page(gather(run))
    answer = content[content.index('id="answer"') : content.index('id="front"')]
    assert "net-05</strong> has the highest test accuracy within the budget" in answer
    assert ">88.0%<" in answer
    assert 'href="models/net-05.onnx"' in answer
    assert "budget 0.500 ms: met" in answer
    assert content.index('id="answer"') == min(content.index(f'id="{one.name}"') for one in SECTIONS)


def changed(run: RunFolder, **changes: object) -> ReportData:
    """Return the data of ``run`` with other values in the rows of the measured models."""
    report_data = gather(run)
    return replace(report_data, verified=tuple(replace(row, **changes) for row in report_data.verified))  # type: ignore[arg-type]


def test_the_answer_names_its_state_and_the_usual_one(run: RunFolder) -> None:
    content = page(gather(run))
    answer = content[content.index('id="answer"') : content.index('id="front"')]
    best = gather(run).candidate("net-05")
    assert best is not None
    usual = milliseconds(best.measured[0].usual_ms)
    assert re.search(rf"</strong> on fake in the quiet state, and in {usual} in the usual state\.</p>", answer)
    assert "exceeds the budget" not in answer
    assert "is unreliable" not in answer
    over = section("answer", changed(run, usual_ms=0.7))
    assert "and in 0.700 ms in the usual state" in over
    assert "In the usual state of fake, it exceeds the budget</strong> of 0.500 ms. The budget holds in" in over
    assert "search with <code>--state usual</code>" in over
    # Rows of a run that has no such figure.
    assert "in the usual state" not in section("answer", changed(run, usual_ms=None))
    assert "in the 0.9 quantile of the time" in section("answer", changed(run, state="0.9"))


def test_the_answer_says_what_was_trained_that_uses_more_of_the_budget(run: RunFolder) -> None:
    report_data = gather(run)
    networks = [*report_data.candidates[:5], *report_data.rejected]
    nominees = tuple(
        Nominee(
            f"final-{number}",
            *one.architecture,
            (one.latency_estimates[0].predicted_ms,),
            1,
            "score",
            0.5,
            (ClassCounts((50, 50), (40 - number, 0)),),
        )
        for number, one in enumerate(networks)
    )
    stage = FinalStage(Rungs((2,), 2), PRESETS["quick"].recipe, 1.0, 1.0, nominees)
    # The answer is the slowest of the front, and only the rejected network takes longer.
    told = section("answer", replace(report_data, final_stage=stage))
    assert (
        "None of the 6 networks of the final stage uses more of the 0.5 ms on fake, apart from 1 that exceeded a "
        "budget when measured; a larger <code>--final</code> trains more networks." in told
    )
    # Another answer, which two networks of the front are slower than; one of them was trained to the end.
    rows = tuple(replace(row, accuracy=0.99) if row.name == "net-03" else row for row in report_data.verified)
    other = replace(report_data, final_stage=stage, verified=rows)
    told = section("answer", other)
    times = {row.name: milliseconds(row.measured_ms) for row in rows}
    assert re.search(
        r"In the final stage, 2 networks that use more of the 0.5 ms on fake were trained, apart from 1 that "
        r"exceeded a budget when measured; after 2 epochs, the most accurate of them \(predicted at [\d.]+ ms\) "
        r"had 37\.0% of 100 held-out images right, and net-03 \(predicted at [\d.]+ ms\) 38\.0%\.",
        told,
    )
    assert (
        f"1 trained model uses more of the 0.500 ms on fake: in {times['net-05']}, it has 88.0% of the test images "
        f"right, and net-03 99.0% in {times['net-03']}." in told
    )
    # A search without a final stage says so.
    without = section("answer", report_data)
    assert "because the search had no final stage; <code>--final 0.3</code> trains larger networks." in without


def test_the_states_of_the_machine_are_reported(make_run: MakeRun, table: LatencyTable) -> None:
    run = make_run("restless")
    states = (MachineState("quiet", 0.62, 1.0), MachineState("slower", 0.38, 1.4))
    replace(table, machine=Machine(states, (1.0, 1.2, 1.4), 0.01), standard_error=0.031).write(run.table_path(0))
    report_data = gather(run)
    conditions = section("conditions", report_data)
    for name, value in (
        ("state of the budget", "the quiet state"),
        ("quiet state", "62% of the time"),
        ("slower state", "38% of the time, 1.40 times the quiet latency"),
        ("usual state", "1.20 times the quiet latency"),
    ):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in conditions
    told = "The latency table of fake is unreliable</strong>: predicted networks have a standard error of 3.1%"
    assert section("answer", report_data).count(told) == 1
    assert section("answer", replace(report_data, verified=())).count(told) == 1
    front = section("front", report_data)
    assert '<th scope="col">usual state</th>' in front
    assert "Predicted and measured latencies of fake are those of the quiet state." in front


def test_the_conditions_count_the_images_that_evaluate_an_architecture(run: RunFolder) -> None:
    found = gather(run)
    for asked, said in ((0, "165 of 165"), (40, "40 of 165"), (400, "165 of 165")):
        training = replace(found.configuration.training, evaluation_images=asked)
        report = replace(found, configuration=replace(found.configuration, training=training))
        assert f"<dd>{said} validation images, by the shared classifier</dd>" in section("conditions", report)


def test_the_conditions_have_the_sustained_state(make_run: MakeRun, table: LatencyTable) -> None:
    load = Sustained(1.0, 1.4, 1.5, 1.8, 240.0, 60.0, 900, 1800.0, cooled=False, warmest_c={"case": 41.5})
    state = SustainedState((LoadedNetwork(zoo()["CARS_A"].genotype, 4, 5, (9, 8), 1.0, load),))
    run = make_run("usual")
    replace(table, sustained=state).write(run.table_path(0))
    conditions = section("conditions", gather(run))
    told = (
        "after 240 s of load, the median run takes 1.50 times the quiet latency, and 90% of runs take at most 1.80"
    )
    assert f"<dt>sustained state</dt><dd>{told} times</dd>" in conditions
    assert "<dt>under load</dt><dd>clock 1800 MHz, case 41.5 C</dd>" in conditions
    assert "the sustained state: the device had not cooled down when the load began" in conditions


def test_models_that_were_not_measured_in_the_quiet_state_are_named(run: RunFolder) -> None:
    measured = section("measured", gather(run))
    assert '<th scope="col">usual state</th>' in measured
    assert milliseconds(gather(run).verified[0].usual_ms) in measured
    assert "Not measured in the quiet state" not in measured
    restless = section("measured", changed(run, quiet=False, state="usual"))
    assert "Not measured in the quiet state</strong> of fake: net-01, net-01.int8, net-03," in restless
    assert "latencies of fake are those of the usual state" in restless


def test_what_a_device_warned_of_and_the_sustained_state_are_shown(run: RunFolder) -> None:
    load = Sustained(1.0, 1.2, 1.25, 1.5, load_s=240.0, window_s=60.0, runs=900)
    measured = section("measured", changed(run, device_warnings=("the battery saver is on",), sustained=load))
    assert (
        "Not at its best:</strong> when the exported models were measured, fake reported: the battery" in measured
    )
    assert "After minutes of load" in measured
    for text in (milliseconds(1.25), milliseconds(1.5), "+25.0%"):
        assert f">{text}<" in measured
    assert "still rises, by 4.2% in 60 s" in measured
    assert "After minutes of load" not in section("measured", gather(run))


def test_the_parts_of_a_latency_are_those_of_its_state(make_run: MakeRun, table: LatencyTable) -> None:
    run = make_run("usual")
    states = (MachineState("quiet", 0.4, 1.0), MachineState("slower", 0.6, 1.5))
    replace(table, machine=Machine(states, (1.0, 1.5, 1.5), 0.01)).write(run.table_path(0))
    known = run.record_of_run
    usual = tuple(replace(one, state="usual") for one in known.configuration.targets)
    RUN.write_record(
        run.path / "run.json", replace(known, configuration=replace(known.configuration, targets=usual))
    )
    report_data = gather(run)
    networks = section("networks", report_data)
    assert networks.count("in the usual state, networks take 1.50 times as long.") == 5
    predictor = Predictor(table)
    for candidate in report_data.candidates:
        slow = milliseconds(1.5 * predictor.predict(candidate.genotype).ms)
        assert f"The bars add up to the predicted {slow}." in networks
    assert "networks take" not in section("networks", gather(make_run("quiet")))


def test_a_model_is_chosen_among_those_that_kept_to_the_budget(run: RunFolder) -> None:
    rows = [row("a", 1.0, 0.8), row("b", 2.0, 0.9), row("c", 3.0, 0.95, False), row("d", 0.5, 0.99, None, "other")]
    report_data = replace(gather(run), verified=tuple(rows))
    assert best_model(report_data) == rows[1]
    # What exceeds one budget is not the answer on another device either.
    assert best_model(replace(report_data, verified=(*rows, row("b", 1.0, 0.9, False, "other")))) == rows[0]
    assert best_model(replace(report_data, verified=(rows[2],))) is None


def test_of_two_models_the_faster_and_better_one_is_offered() -> None:
    rows = [
        row("a", 1.0, 0.8),
        row("b", 2.0, 0.8),
        row("c", 3.0, 0.9),
        row("d", 0.5, None),
        row("e", 0.9, 0.9, False),
    ]
    assert [chosen.name for chosen in choices(rows)] == ["a", "c"]


def test_before_anything_was_measured_the_next_step_is_told(make_run: MakeRun) -> None:
    content = page(gather(make_run("fresh", measured=False)))
    assert "No exported model has been measured yet" in content
    assert "cars-hw train fresh" in content


def forced(record: Any, **changes: str) -> Any:  # noqa: ANN401 -- any record
    """Return a copy of ``record`` with texts that its class refuses: the page is safe without that, too."""
    made = copy.copy(record)
    for name, value in changes.items():
        object.__setattr__(made, name, value)
    return made


def test_texts_from_files_are_escaped_wherever_they_appear(run: RunFolder) -> None:
    known = gather(run)
    (aim,) = known.targets
    assert aim.target is not None
    table = replace(aim.target.table, conditions={"processor": NAUGHTY, "platform": NAUGHTY}, created=NAUGHTY)

    def renamed(candidate: Candidate) -> Candidate:
        name = candidate.name + NAUGHTY
        models = tuple(replace(one, name=one.name + NAUGHTY, path=one.path + NAUGHTY) for one in candidate.models)
        estimates = tuple(replace(one, device=NAUGHTY) for one in candidate.latency_estimates)
        measured = tuple(forced(one, device=NAUGHTY, name=name) for one in candidate.measured)
        return replace(candidate, name=name, models=models, latency_estimates=estimates, measured=measured)

    verified = tuple(forced(one, device=NAUGHTY, name=one.name + NAUGHTY) for one in known.verified)
    sample = tuple(forced(Ranked("x", one.genotype, one.spec, 0.5, 0.5), name=NAUGHTY) for one in known.candidates)
    hostile = replace(
        known,
        path=known.path.with_name("odd & <b>"),
        about=RunAbout(NAUGHTY, {NAUGHTY: NAUGHTY}, 1),
        configuration=replace(known.configuration, data=NAUGHTY),
        candidates=tuple(map(renamed, known.candidates)),
        targets=(RunTarget(replace(aim.record, device=NAUGHTY), LatencyTarget(table, 0.5)),),
        verified=verified,
        ranking=Ranking(sample, None),
    )
    content = page(hostile)
    found, plain = Reader(content), Reader(page(known))
    assert "alert(" in content
    assert found.scripts == plain.scripts == 1
    assert found.open == []
    assert "<script>alert" not in content
    assert "<b>" not in content
    assert "onload" not in found.attributes


def test_characters_that_a_page_cannot_show_are_replaced(run: RunFolder) -> None:
    known = gather(run)
    # A path that is no UTF-8, a control character, and a change of the writing direction.
    odd = "a\udcff\x1b[31m\x00\u202eb"
    content = page(
        replace(known, path=known.path.with_name("\udcff"), configuration=replace(known.configuration, data=odd))
    )
    mark = "\N{REPLACEMENT CHARACTER}"
    assert f"<code>{mark}/</code>" in content
    assert f"a{mark}{mark}[31m{mark}{mark}b" in content
    assert not re.search("[\x00-\x08\x1b\u202e]", content)
    content.encode()


def test_the_report_needs_no_pytorch() -> None:
    code = "import sys, cars_hw.report.page; print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_the_population_is_drawn_over_every_cost_of_the_search(run: RunFolder) -> None:
    report_data = gather(run)
    standalone = section("population", report_data)
    assert (
        standalone.count("The population of every generation: accuracy under shared weights by") == 2
    )  # for a desk, and for a telephone
    history = [
        {**one, "population": [{**member, "costs": [*member["costs"], 0.5, 7.0]} for member in one["population"]]}
        for one in report_data.history
    ]
    costs = ("multiply-adds", "parameters")
    several = replace(
        report_data, history=tuple(history), configuration=replace(report_data.configuration, costs=costs)
    )
    assert [(cost.title, cost.index) for cost in several.minimised] == [
        ("predicted latency on fake", 0),
        ("multiply-adds", 1),
        ("parameters", 2),
    ]
    drawn = section("population", several)
    for cost in costs:
        assert drawn.count(f"The population of every generation: accuracy under shared weights by {cost}, M") == 1
        assert drawn.count(f"{cost}, M: median, range, by generation") == 1
    # Without a table the first count is the first plot.
    counted = replace(
        several,
        targets=(),
        history=report_data.history,
        configuration=replace(report_data.configuration, costs=costs[:1]),
    )
    assert [(cost.title, cost.index) for cost in counted.minimised] == [("multiply-adds", 0)]
    assert "accuracy under shared weights by multiply-adds, M" in section("population", counted)


def test_a_table_that_cannot_be_read_leaves_the_rest(make_run: MakeRun) -> None:
    run = make_run("damaged")
    run.table_path(0).write_text("{}")
    content = page(gather(run))
    assert "net-05</strong> has the highest test accuracy" in content
    assert "Not available:" in content


def test_the_file_of_a_model_is_named_also_where_the_package_of_the_device_is_broken(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card tells which of two files was measured; where none does, that of the format of the device."""

    def broken(_group: str, name: str) -> None:
        raise InputError(f"the plug-in {name} cannot be imported")

    run = make_run("of a plug-in")
    first, second = run.model_path("net-05", "onnx"), run.model_path("net-05", "tflite")
    shutil.copy(first, second)
    card = verified_card(first)
    card.with_latency(CardLatency("dsp", 1, "quiet", measured_ms=1.0)).write(card_path(second))
    monkeypatch.setattr("cars_hw.devices.registry.plugin_names", lambda _group: ["dsp", "npu"])
    monkeypatch.setattr("cars_hw.devices.registry.load_plugin", broken)
    rows = [replace(row, device={"net-05": "dsp"}.get(row.name, "npu")) for row in run.verified()]
    run.write_verified(rows)
    found = gather(run)
    files = [found.model("net-05", device) for device in ("dsp", "fake", "npu")]
    assert [file and file.file for file in files] == ["net-05.tflite", "net-05.onnx", None]
    assert 'href="models/net-05.tflite"' in page(found)


def test_rejected_networks_and_the_effect_of_int8_are_reported(run: RunFolder) -> None:
    content = page(gather(run))
    assert "<p>1 network was rejected by measurement: predicted to meet the budget" in content
    assert "net-06" in content
    slower = "net-03.int8 on fake: 2.00 times slower than float32, accuracy \N{MINUS SIGN}1.0 percentage points."
    assert slower in content


def test_a_network_that_was_trained_beside_the_front_is_there_too(make_run: MakeRun) -> None:
    run = make_run("beside")
    trained = run.trained()[0]
    cells = run.front()[3].genotype
    beside = replace(trained, name="genotype-1", genotype=Genotype(cells.normal, trained.genotype.reduce))
    run.write_trained(beside)
    report_data = gather(run)
    assert [candidate.name for candidate in report_data.candidates][-1] == "genotype-1"
    assert 'id="genotype-1"' in page(report_data)


def test_the_page_can_be_made_from_a_copy_elsewhere(run: RunFolder, tmp_path: Path) -> None:
    copied = shutil.copytree(run.path, tmp_path / "run")
    assert page(gather(RunFolder(copied))) == page(gather(run))


def test_the_page_asks_nobody_for_anything(run: RunFolder) -> None:
    content = page(gather(run))
    assert "default-src 'none'" in content.replace("&#x27;", "'")
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<img|\ssrc=", content.replace("// ", ""))


def test_without_a_sample_the_front_s_trained_networks_are_compared(make_run: MakeRun) -> None:
    run = make_run("unranked")
    assert "no sample of architectures was trained from scratch" in page(gather(run))
    # Three were trained; a fourth one makes an order that something can be said of.
    trained, missing = run.trained(), run.front()[1]
    run.write_trained(
        replace(trained[0], name=missing.name, genotype=missing.genotype, test=evaluation((50, 30, 20), (1, 0, 0)))
    )
    accuracies = {network.name: network.accuracy for network in run.trained()}
    pairs = [(network.accuracy, accuracies[network.name]) for network in run.front() if network.name in accuracies]
    signs = [np.sign((a - c) * (b - d)) for (a, b), (c, d) in combinations(pairs, 2)]
    assert len(pairs) == 4
    assert f"Kendall's tau between shared and test accuracy is {sum(signs) / 6:.2f} (1 for the same order" in page(
        gather(run)
    )


def answer_of(run: RunFolder) -> str:
    content = page(gather(run))
    return content[content.index('id="answer"') : content.index('id="front"')]


def test_few_images_name_no_most_accurate_model(run: RunFolder) -> None:
    answer = answer_of(run)
    # 88, 84 and 80 of 100 images. What the others get wrong beside that, four and eight images, net-05 gets right:
    # by McNemar's test 2/16 and 2/256.
    assert "net-05</strong> has the highest test accuracy within the budget: <strong>88.0%</strong>" in answer
    assert "95% interval 80.2% to 93.0%" in answer
    assert "On these test images, it cannot be told from</strong> net-03 at 95%." in answer
    assert "is the most accurate model" not in answer
    assert "88.0% (80.2 to 93.0)</td><td>100</td>" in answer


def test_enough_images_name_the_most_accurate_model(make_run: MakeRun) -> None:
    run = make_run("apart")
    for one, right in zip(run.trained(), ((20, 10, 5), (30, 15, 5), (50, 28, 18)), strict=True):
        run.write_trained(replace(one, test=evaluation((50, 30, 20), right)))
    rows = []
    for row in run.verified():
        (one,) = (one for one in run.trained() if one.name == row.network)
        if row.precision == "fp32":
            rows.append(replace(row, accuracy=one.accuracy))
    run.write_verified(rows)
    answer = answer_of(run)
    assert "net-05</strong> is the most accurate model within the budget: <strong>96.0%</strong> of 100" in answer
    assert "At 95%, its test accuracy is higher than that of every other model within the budget." in answer
    assert "cannot be told" not in answer
    assert (
        "net-01 is not shown to be better than the answer &#39;a&#39; for every image, which is right for 50.0%"
        in answer
    )
    assert "net-05 is not shown" not in answer


def test_a_further_training_is_shown_beside_the_first_and_is_not_chosen_by_test_images(make_run: MakeRun) -> None:
    run = make_run("again")
    first, row = run.trained()[0], run.verified()[0]
    assert first.name == row.name == "net-01"
    better = replace(first, name="net-01@2", test=evaluation((50, 30, 20), (50, 30, 19)), seed=7)
    run.write_trained(better)
    run.write_verified([*run.verified(), replace(row, name="net-01@2", accuracy=0.99)])
    content = page(gather(run))
    answer = answer_of(run)
    assert "net-05</strong> has the highest test accuracy" in answer
    assert "Not shown: net-01@2." in answer
    assert 'A further training of <a href="#net-01">net-01</a>.' in content
    section = content[content.index('<section id="net-01@2"') :]
    assert "Trained for" in section
    assert "with seed 7 from fresh weights" in section
    # Held-out images may choose it.
    run.write_trained(replace(first, held_out=ClassCounts((10, 10, 10), (8, 8, 8))))
    run.write_trained(replace(better, held_out=ClassCounts((10, 10, 10), (9, 8, 8))))
    assert "net-01@2</strong> " in answer_of(run)
    assert "Not shown: net-01." in answer_of(run)


def test_accuracies_are_told_apart_by_name(run: RunFolder) -> None:
    content = page(gather(run))
    section = content[content.index('<section id="net-01"') : content.index('<section id="net-02"')]
    assert "test accuracy, trained" in section
    assert "validation accuracy, shared weights" in section
    assert "95%: 71.1% to 86.7%, 100 images" in section
    low, high = (100 * end for end in wilson_interval(35, 50))
    assert f"95%: {low:.1f}% to {high:.1f}%, 50 images" in section
    # 40 of 50, 30 of 30, 10 of 20; a wrong answer is the next class.
    classes = content[content.index('id="classes"') :]
    assert '<th scope="col">net-01</th><th scope="col">net-03</th><th scope="col">net-05</th>' in classes
    assert '<tr><th scope="row">a</th><td>50</td><td>80.0% (67.0 to 88.8)</td>' in classes
    # The mean of 80%, 100% and 50%.
    assert '<tr><th scope="row">mean of the classes (balanced accuracy)</th><td>100</td><td>76.7% (' in classes
    matrix = classes[classes.index("Confusion matrix of net-01") : classes.index("Confusion matrix of net-03")]
    rows = re.findall(r'<tr><th scope="row">(.)</th><td>(\d+)</td><td>(\d+)</td><td>(\d+)</td></tr>', matrix)
    assert rows == [("a", "40", "10", "0"), ("b", "0", "30", "0"), ("c", "10", "0", "10")]
    untrained = content[content.index('<section id="net-02"') : content.index('<section id="net-03"')]
    assert "; not trained" in untrained
    assert (
        "test accuracies are on 100 images and accuracies under shared weights with the shared classifier on 50 "
        "validation images" in content
    )
