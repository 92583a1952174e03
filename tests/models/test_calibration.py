import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from diffdask.errors import BadParameter
from diffdask.models.calibration import fit_calibration, shift_prevalence


def draw(count, slope, offset, seed=0):
    random = np.random.default_rng(seed)
    log_odds = random.normal(size=count) * 3
    return log_odds, (random.random(count) < expit(slope * log_odds + offset)).astype(int)


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.3, -1.0), (2.0, 0.5)])
def test_the_true_slope_and_offset_are_found(slope, offset):
    log_odds, y = draw(50_000, slope, offset)
    assert fit_calibration(log_odds, y) == pytest.approx((slope, offset), abs=0.06)
    plain = LogisticRegression(C=np.inf, tol=1e-10).fit(log_odds[:, None], y)
    assert fit_calibration(log_odds, y) == pytest.approx((plain.coef_[0, 0], plain.intercept_[0]), abs=5e-3)


def test_a_temperature_has_no_offset():
    slope, offset = fit_calibration(*draw(50_000, 0.4, 0.0), method="temperature")
    assert slope == pytest.approx(0.4, abs=0.02)
    assert offset == 0
    assert fit_calibration(*draw(100, 0.4, 0.0), method="none") == (1, 0)


def test_the_order_is_never_turned_over_and_separation_is_no_certainty():
    log_odds, y = draw(400, 1.0, 0.0)
    assert fit_calibration(-log_odds, y)[0] > 0
    slope, offset = fit_calibration(np.array([-2.0, -1.0, -1.5, 1.0, 2.0, 1.5]), np.array([0, 0, 0, 1, 1, 1]))
    assert 0.5 < expit(slope * 2.0 + offset) < 0.95
    assert np.isfinite(fit_calibration(np.zeros(20), np.arange(20) % 2)).all()


def test_the_shift_is_bayes():
    """Draw at one share, use at another: probabilities of the rarer population come out right."""
    random = np.random.default_rng(0)
    y = (random.random(400_000) < 0.02).astype(int)
    x = random.normal(size=y.size) + 2 * y
    log_odds = 2 * x - 2 + shift_prevalence(0.5, 0.02)  # 2 x - 2 is the log of the likelihood ratio
    for low, high in ((0.05, 0.2), (0.3, 0.6)):
        chosen = (expit(log_odds) > low) & (expit(log_odds) < high)
        assert y[chosen].mean() == pytest.approx(expit(log_odds[chosen]).mean(), abs=0.02)
    assert shift_prevalence(0.3, None) == 0
    assert shift_prevalence(0.3, 0.7) == pytest.approx(logit(0.7) - logit(0.3))


def test_an_unknown_calibration_is_told():
    with pytest.raises(BadParameter, match="platt"):
        fit_calibration(*draw(20, 1, 0), method="plat")
