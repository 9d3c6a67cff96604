"""`python -m convert --verify` against the torch reference of each format."""

import pytest

from convert import guided_diffusion
from convert.verify import TOLERANCE, verify
from jaxdiff.checkpoints.formats import convert
from tests.checkpoints.published import ADM_FIELDS, write


@pytest.mark.parametrize(
    "kind", ["adm", *(pytest.param(k, marks=pytest.mark.slow) for k in ("ncsn++", "consistency"))]
)
def test_converted_it_is_the_same_function(kind, tmp_path):
    (tmp_path / "in").mkdir()
    source, _ = write(kind, tmp_path / "in")
    config = ADM_FIELDS if kind == "adm" else None
    convert(source, tmp_path / "out", config=config)
    rows = verify(str(source), tmp_path / "out", "float64", config)
    assert rows[-1]["block"] == "output" and rows[-1]["relative"] <= TOLERANCE["float64"]
    assert len(rows) == 1 or kind != "adm"


def test_another_order_of_attention_is_found(tmp_path):
    """Read in guided-diffusion's new order, the weights of the old one are another function."""
    source, _ = write("adm", tmp_path)
    swapped = ADM_FIELDS | {"use_new_attention_order": True}
    convert(source, tmp_path / "out", config=swapped)
    assert verify(str(source), tmp_path / "out", "float32", ADM_FIELDS)[-1]["relative"] > 1e-3
    assert verify(str(source), tmp_path / "out", "float32", swapped)[-1]["relative"] <= 1e-5
    assert guided_diffusion.load(source, swapped).middle_block[1].new_order
