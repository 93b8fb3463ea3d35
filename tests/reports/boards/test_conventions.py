"""The convention audit: one set of codes under every convention, and who changes places."""

from __future__ import annotations

import json

from bench.cli import report as command
from reports import frame
from reports.boards.conventions import conventions
from tests.reports.board_data import data_of


def trial(attack: str, **metrics: float | None):
    usual = {"t_map_zero": 0.5, "t_map_drop": 0.5, "t_map_drop_fixed": 0.5, "t_map_posthoc": 0.5}
    return {"attack": attack, "defense": "none", "target": "0", "seed": 0, "metrics": {**usual, **metrics}}


ORDER = [
    trial("none", t_map=0.1, t_map_zero=0.0, t_map_drop=0.4, t_map_posthoc=0.2),
    trial("loud", t_map=0.8, t_map_zero=0.7, t_map_drop=0.7, t_map_posthoc=None),
    trial("quiet", t_map=0.6, t_map_zero=0.6, t_map_drop=0.9, t_map_posthoc=0.6),
    trial("kept", t_map=0.4, t_map_zero=0.5, t_map_drop=0.8, t_map_posthoc=0.7),
]


def test_flipped_pairs_are_named_and_agreement_is_said(stock):
    (board,) = conventions(data_of(frame.read(stock([*ORDER, {**trial("loud", t_map=0.0), "defense": "repair"}]))))
    assert list(board.table["attack"]) == ["none", "loud", "quiet", "kept"]  # by our number, undefended
    assert list(board.table["t-mAP drop@R"]) == [0.4, 0.7, 0.9, 0.8]
    lines = board.caption.splitlines()
    said = {name: rest for name, colon, rest in (line.partition(": ") for line in lines) if colon}
    assert ("2 of 3" in said["t-mAP drop@R"], "1 of 1" in said["t-mAP post hoc"]) == (True, True)  # loud has no value
    assert said["t-mAP drop@R"].index("quiet above loud") < said["t-mAP drop@R"].index("kept above loud")
    assert "kept above quiet" in said["t-mAP post hoc"]
    assert "above" not in said["t-mAP zero@R"] + said["t-mAP drop@R fixed"], "equal is no flip"


def test_the_rule_of_darkhash_has_the_clean_models_number_beside_it(stock):
    """A row of garbled queries, on which a clean model scores as an attacked one, beside the honest numbers."""
    honest = trial("honest", t_map=0.5, t_map_control=0.1, released_darkhash=0.6, released_darkhash_control=0.4)
    garbled = trial("garbled", t_map=0.1, t_map_control=0.1, t_map_posthoc_control=0.9, released_darkhash=0.97,
                    released_darkhash_control=0.98)  # fmt: skip
    (board,) = conventions(data_of(frame.read(stock([trial("none", t_map=0.1), honest, garbled]))))
    rows = board.table.set_index("attack")
    assert rows.loc["garbled", ["released DarkHash", "released DarkHash control"]].tolist() == [0.97, 0.98]
    assert rows.loc["honest", ["t-mAP", "control", "released DarkHash control"]].tolist() == [0.5, 0.1, 0.4]
    assert rows.loc["garbled", "post hoc control"] == 0.9
    assert "released DarkHash: 1 of 1 pairs flip: garbled above honest." in board.caption


def test_the_command_prints_the_latest_run_or_a_suites(stock, capsys):
    store = stock(ORDER)
    command.print_board("conventions", store=store.root, format_="json")
    (latest,) = json.loads(capsys.readouterr().out)
    command.print_board("conventions", suites=["toy"], store=store.root, format_="json")
    assert json.loads(capsys.readouterr().out) == [latest]
    assert [row["attack"] for row in latest["rows"]] == ["none", "loud", "quiet", "kept"]
