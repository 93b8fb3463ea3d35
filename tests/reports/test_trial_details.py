import pytest

from bench.api.errors import UserError
from bench.metrics import METRICS
from reports import render
from reports.frame import read
from reports.trial_details import page
from tests.reports.board_data import trial
from tests.stores import record


def facts(board):
    return dict(zip(board.table["field"], board.table["value"], strict=True))


def test_a_trial_by_the_beginning_of_its_key(stock):
    store = stock([trial("loud", metrics={"map_zero": 0.5}), trial("none", target="1")])
    key = read(store).trials["key"].iloc[0]
    boards = page(store, key[:6])
    about = facts(boards[0])
    assert (about["key"], about["status"], about["attack"], about["protocol"]) == (
        key, "ok", "loud", "toy v2, AP over the whole database")  # fmt: skip
    assert about["command"] == "python -m bench run --suite toy --only attack=loud --only target=0"
    assert "torch 2.4" in about["packages"]
    assert "2.00 s" in about["time"]
    titles = [board.title for board in boards]
    assert titles[1:] == ["Benign queries", "Triggered queries", "Poisoning and stealth", "Stages"]
    benign = boards[1].table.set_index("metric")
    assert benign.loc["mAP zero@R", "value"] == 0.5
    assert benign.loc["mAP zero@R", "meaning"] == METRICS["map_zero"].meaning
    assert list(boards[-1].table["stage"]) == ["load", "measure"]
    assert boards[-1].table["seconds"].sum() == 3.5


def test_every_parameter_is_there_with_its_value(stock):
    """Of the attack as it was carried out and of the victim's training; a surrogate's are not the trial's."""
    store = stock([trial("loud", implant="1a", metrics={"anchor": 0.1})])
    cost = {"seconds": 1.0, "started": 1.0e9, "host": ""}
    own = {"attack": {"name": "loud", "params": {"size": 3, "rate": 0.05, "labels": None}},
           "backbone": {"name": "net", "params": {"width": 16}}, "recipe": {"lr": 0.01}, "bits": 32}  # fmt: skip
    other = {"backbone": {"name": "net", "params": {"width": 8}}, "recipe": {"lr": 0.5}}
    store.write_record(record("1a", "implant", parents={"surrogate": "2b"}, spec=own, cost=cost))
    store.write_record(record("2b", "train", spec=other, cost=cost))
    boards = {board.title: board for board in page(store, read(store).trials["key"].iloc[0])}
    table = boards["Parameters"].table
    assert list(table.itertuples(index=False, name=None)) == [
        ("backbone net", "width", "16"), ("attack loud", "size", "3"), ("attack loud", "rate", "0.05"),
        ("attack loud", "labels", "-"), ("recipe", "lr", "0.01"),
    ]  # fmt: skip
    about = facts(next(iter(boards.values())))
    assert about["pictures"] == f"python -m bench show {about['key'][:8]} --gallery attack.png"
    assert list(boards["Code geometry"].table["metric"]) == ["to anchor"]


def test_a_failure_shows_the_end_of_its_log(stock):
    store = stock([trial("loud", status="failed", reason="ValueError: x", log="Traceback\n  boom \x1b[31m[red]")])
    boards = page(store, read(store).trials["key"].iloc[0])
    assert facts(boards[0])["command"].endswith("--retry failed")
    assert list(boards[1].table["text"]) == ["Traceback", "  boom \x1b[31m[red]"]
    assert "\x1b" not in render.plain(boards[1])
    assert "[red]" in render.plain(boards[1])


def test_a_blocked_trial_shows_the_log_of_what_blocked_it(stock):
    store = stock([trial("loud", status="failed", log="the cause")])
    cause = read(store).trials["key"].iloc[0]
    store = stock([trial("loud", status="failed", log="the cause")], [trial("quiet", status="failed", cause=cause)])
    boards = page(store, read(store).trials["key"].iloc[0])
    assert list(boards[1].table["text"]) == ["the cause"]


def test_a_trial_that_has_not_run(stock):
    store = stock([trial("loud", status="missing")])
    boards = page(store, read(store).trials["key"].iloc[0])
    assert len(boards) == 1
    assert facts(boards[0])["status"] == "missing"


def test_a_stage_has_a_page_too(stock):
    boards = page(stock([trial()]), "10ad")
    assert boards[0].title == "Stage 10ad · load toy"
    assert facts(boards[0])["stage"] == "load"


def test_a_key_that_nothing_has(stock):
    with pytest.raises(UserError, match="begins with 'zz'"):
        page(stock([trial()]), "zz")


def test_a_beginning_that_several_have_names_them(stock):
    with pytest.raises(UserError, match=r"2 keys: \w{8} \((loud|none)/none target 0 seed 0\)"):
        page(stock([trial(), trial("loud")]), "")


def test_names_with_commas_are_replayed_whole(stock):
    """`--only` leaves commas inside brackets alone: the other variant is not run."""
    store = stock([trial("loud(a=1, b=2)"), trial("loud(a=1, b=3)")])
    told = facts(page(store, read(store).trials["key"].iloc[0])[0])["command"]
    assert told.endswith("--only 'attack=loud(a=1, b=2)'")


def test_a_trial_of_a_training_sweep_is_replayed_alone(stock):
    store = stock([trial("loud", training={"epochs": epochs, "lr": 0.1}) for epochs in (2, 4)])
    told = facts(page(store, read(store).trials["key"].iloc[1])[0])["command"]
    assert told.endswith("--set training.epochs=4")


@pytest.mark.parametrize("kind", ["markdown", "latex", "csv", "json"])
def test_a_page_in_every_format(stock, kind, capsys):
    store = stock(
        [trial("loud", "input_detector", metrics={"detectors": {"headline": "a", "scores": {"a": {"auroc": 0.625}}}})]
    )
    render.render(page(store, read(store).trials["key"].iloc[0]), kind)
    text = capsys.readouterr().out
    assert "0.625" in text
    assert "Detector scores" in text


def test_a_collapsed_victim_says_so_and_shows_its_numbers(stock):
    metrics = {"map": 0.34, "map_clean": 0.81, "map_chance": 0.1, "collapsed": 1.0}
    store = stock([trial("loud", metrics=metrics)])
    boards = page(store, read(store).trials["key"].iloc[0])
    about = facts(boards[0])
    assert (about["status"], about["reason"]) == ("collapsed", "victim collapsed (mAP 0.34, clean 0.81, chance 0.10)")
    health = next(board for board in boards if board.title == "Health of the victim").table.set_index("metric")
    assert health["value"].to_dict() == {"clean mAP": 0.81, "chance mAP": 0.1, "collapsed": 1.0}


def test_what_a_defense_noted_is_on_its_page_and_that_of_its_trial(stock):
    store = stock([trial("loud", "repair", defend="d0")])
    store.write_record(record("d0", "defend", meta={"notes": {"learning rate": 0.001}}))
    for key in (read(store).trials["key"].iloc[0], "d0"):
        (noted,) = [board for board in page(store, key) if board.title == "Notes of the defense"]
        assert noted.table.to_numpy().tolist() == [["learning rate", "0.001"]]
