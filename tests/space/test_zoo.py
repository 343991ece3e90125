import json
from pathlib import Path

import pytest

from cars_hw.errors import GenotypeError
from cars_hw.space.genotype import Edge, Genotype
from cars_hw.space.zoo import resolve_genotype, zoo


def test_every_published_genotype_is_there() -> None:
    expected = {f"CARS_{letter}" for letter in "ABCDEFGHI"} | {f"CARS_Lat_{letter}" for letter in "ABCDEFG"}
    expected |= {"DARTS_V1", "DARTS_V2", "PDARTS", "SNAS_mild", "SNAS_moderate", "SNAS_aggressive", "GDAS_V1"}
    assert set(zoo()) == expected


@pytest.mark.parametrize("name", zoo())
def test_every_entry_has_a_source_and_round_trips(name: str) -> None:
    genotype, source, _ = zoo()[name]
    assert ":" in source
    assert resolve_genotype(name) == genotype
    assert resolve_genotype(genotype.to_darts()) == genotype
    assert resolve_genotype(json.dumps(genotype.to_dict())) == genotype


def test_entries_are_different_networks() -> None:
    assert len({published.genotype.key() for published in zoo().values()}) == len(zoo())


def test_darts_v2_as_it_is_published() -> None:
    assert zoo()["DARTS_V2"].genotype.normal == (
        (Edge("sep_conv_3x3", 0), Edge("sep_conv_3x3", 1)),
        (Edge("sep_conv_3x3", 0), Edge("sep_conv_3x3", 1)),
        (Edge("sep_conv_3x3", 1), Edge("skip_connect", 0)),
        (Edge("skip_connect", 0), Edge("dil_conv_3x3", 2)),
    )


def test_nobody_can_change_the_zoo() -> None:
    with pytest.raises(TypeError):
        zoo()["MINE"] = zoo()["CARS_A"]  # type: ignore[index]


@pytest.mark.parametrize("file", ["net.json", "net.txt", "Genotype.json"])
@pytest.mark.parametrize("form", ["json", "darts"])
def test_a_file_of_either_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, form: str) -> None:
    genotype = zoo()["CARS_E"].genotype
    text = json.dumps({**genotype.to_dict(), "source": "me"}) if form == "json" else genotype.to_darts()
    (tmp_path / file).write_text(text + "\n")
    monkeypatch.chdir(tmp_path)
    assert resolve_genotype(file) == resolve_genotype(str(tmp_path / file)) == genotype


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CARS-A", "unknown genotype 'CARS-A': no such name, file or DARTS text; did you mean CARS_A?"),
        ("resnet", "unknown genotype 'resnet': no such name, file or DARTS text"),
        ("", "unknown genotype '': no such name, file or DARTS text"),
        (".", "unknown genotype '.': no such name, file or DARTS text"),
        ("x" * 5000, "no such name, file or DARTS text"),
        ("a\nb", r"unknown genotype 'a\nb'"),
        ("a\0b", "unknown genotype"),
        ("missing.json", "cannot read the genotype file missing.json: No such file or directory"),
        ("a\0.json", "cannot read the genotype file"),
        ("{", "the genotype is not JSON"),
        ("Genotype(", "the genotype is not DARTS text"),
    ],
)
def test_what_is_not_a_genotype_is_refused_in_a_line(text: str, message: str) -> None:
    with pytest.raises(GenotypeError) as error:
        resolve_genotype(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200
    # Where nothing is near, the command line adds where the published genotypes are listed.
    assert (error.value.remedy == "zoo") == str(error.value).endswith("no such name, file or DARTS text")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "the genotype is not DARTS text"),
        (b'{"normal": []}', "the normal cell needs 8 pairs"),
        (b"\xff\xfe", "cannot read the genotype file"),
        (b"", "the genotype is not DARTS text"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(GenotypeError, match=message) as error:
        resolve_genotype(str(path))
    assert str(path) in str(error.value)


def test_a_folder_is_no_genotype(tmp_path: Path) -> None:
    folder = tmp_path / "folder.json"
    folder.mkdir()
    with pytest.raises(GenotypeError, match="cannot read the genotype file"):
        resolve_genotype(str(folder))
    with pytest.raises(GenotypeError, match="unknown genotype"):
        resolve_genotype(str(tmp_path))


def test_a_name_wins_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "CARS_A").write_text(zoo()["CARS_B"].genotype.to_darts())
    monkeypatch.chdir(tmp_path)
    assert resolve_genotype("CARS_A") == zoo()["CARS_A"].genotype
    assert isinstance(resolve_genotype("CARS_B"), Genotype)
