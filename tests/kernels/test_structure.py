import numpy as np
import pytest

from diffdask.kernels.structure import find_structure_significance, weigh_pairs

Q = np.linspace(0.5, 3.0, 40)
BINS = 72
SCALE = 0.07


@pytest.fixture(scope="module")
def pairs():
    return weigh_pairs(Q, BINS, SCALE)


def significances(hits, lags, weights):
    return np.array([find_structure_significance(hit, lags, weights) for hit in hits])


def noise(count, seed=0):
    values = np.random.default_rng(seed).normal(size=(count, len(Q), BINS))
    values[:, :, 20:23] = np.nan
    return values


def features(count, seed, width=SCALE):
    """Random fields, smooth over ``width`` in reciprocal space, of unit variance: sums of plane waves."""
    random = np.random.default_rng(seed)
    angle = (np.arange(BINS) + 0.5) * 2 * np.pi / BINS
    x, y = Q[:, None] * np.cos(angle), Q[:, None] * np.sin(angle)
    made = np.zeros((count, len(Q), BINS))
    for _ in range(150):
        a, b = random.normal(size=(2, count, 1, 1)) / width
        phase = random.uniform(0, 2 * np.pi, size=(count, 1, 1))
        made += np.sqrt(2 / 150) * np.cos(a * x + b * y + phase)
    return made


def reference(values, lags, weights):
    """The same, pair by pair, with NumPy."""
    total = variance = 0.0
    for ring in range(len(values)):
        near, far = np.zeros(4), np.zeros(4)
        for (ring_lag, azimuth_lag), of_rings in zip(lags, weights, strict=True):
            if (w := of_rings[ring]) != 0:
                product = values[ring] * np.roll(values[ring + ring_lag], -azimuth_lag)
                pairs, part = np.isfinite(product).sum(), near if w > 0 else far
                part += abs(w) * np.nansum(product), w**2 * np.nansum(product**2), w**2 * pairs, abs(w) * pairs
        if near[3] and far[3]:
            balance = near[3] / far[3]
            squares = near[1] + balance**2 * far[1]
            share = min(1.0, np.sqrt((near[2] + balance**2 * far[2]) / squares))
            total, variance = total + share * (near[0] - balance * far[0]), variance + share**2 * squares
    return total / np.sqrt(variance)


def test_the_significance_is_the_weighted_sum_over_pairs(pairs):
    hits = noise(3) + features(3, 1)
    hits[1, 7] *= 30
    expected = [reference(hit, *pairs) for hit in hits]
    np.testing.assert_allclose(significances(hits, *pairs), expected, rtol=1e-10)


def test_counting_noise_has_mean_zero_and_variance_one(pairs):
    found = significances(noise(2000), *pairs)
    assert abs(found.mean()) < 4 / np.sqrt(2000)
    assert found.var() == pytest.approx(1.0, abs=4 * np.sqrt(2 / 2000))
    assert np.abs(found).max() < 5


@pytest.mark.parametrize("level", [0.3, 1.0, 5.0])
def test_the_unit_of_the_values_does_not_matter_to_noise(pairs, level):
    found = significances(level * noise(500, seed=1), *pairs)
    assert abs(found.mean()) < 0.2
    assert found.std() == pytest.approx(1.0, abs=0.15)


def test_features_of_the_right_width_stand_out_and_fine_ones_and_coarse_ones_do_not(pairs):
    strength = 0.5
    median = {
        width: np.median(significances(noise(40) + strength * features(40, 2, width), *pairs))
        for width in (0.01, 0.07, 0.14, 2.0)
    }
    assert median[0.07] > 6
    assert median[0.14] > 6
    assert median[0.01] < 0.25 * median[0.07]
    assert abs(median[2.0]) < 0.25 * median[0.07]


def test_a_stronger_feature_is_more_significant(pairs):
    background, feature = noise(20), features(20, 3)
    levels = [significances(background + s * feature, *pairs) for s in (0.0, 0.3, 0.6, 1.2)]
    assert (np.diff(levels, axis=0) > 0).all()


def test_turning_about_the_beam_and_mirroring_change_nothing(pairs):
    hits = noise(4) + 0.5 * features(4, 4)
    straight = significances(hits, *pairs)
    for turn in (1, 17, 36):
        np.testing.assert_allclose(significances(np.roll(hits, turn, axis=2), *pairs), straight, rtol=1e-9)
    np.testing.assert_allclose(significances(hits[:, :, ::-1].copy(), *pairs), straight, rtol=1e-9)
    np.testing.assert_allclose(significances(-hits, *pairs), straight, rtol=1e-9)


def test_one_loud_ring_does_not_decide(pairs):
    """A spotty ice ring: neighbouring azimuths agree, and a hundred times as loud as counting noise."""
    hits = noise(200, seed=5)
    wave = np.repeat(np.random.default_rng(6).normal(size=(200, BINS // 4)), 4, axis=1)
    spoilt = hits.copy()
    spoilt[:, 11] += 10 * wave
    assert np.median(significances(spoilt, *pairs)) < 2.5
    telling = hits + 0.5 * features(200, 7)
    before = np.median(significances(telling, *pairs))
    telling[:, 11] += 10 * wave
    assert np.median(significances(telling, *pairs)) > 0.7 * before > 4


def test_an_offset_and_a_slow_wave_cancel_even_where_many_bins_are_missing(pairs):
    hits = noise(200, seed=12)
    hits[np.random.default_rng(13).uniform(size=hits.shape) < 0.3] = np.nan
    hits[:, 10:20, 40:60] = np.nan
    assert np.mean(significances(hits + 0.5, *pairs)) < 0.5
    wave = 0.5 * np.cos(2 * np.pi * np.arange(BINS) / BINS)
    assert np.mean(significances(hits + wave, *pairs)) < 1


def test_missing_bins_are_left_out_and_a_hit_without_bins_has_no_significance(pairs):
    hits = noise(300, seed=8)
    hits[np.random.default_rng(9).uniform(size=hits.shape) < 0.4] = np.nan
    found = significances(hits, *pairs)
    assert found.std() == pytest.approx(1.0, abs=0.15)
    assert np.isnan(find_structure_significance(np.full((len(Q), BINS), np.nan), *pairs))
    alone = np.full((len(Q), BINS), np.nan)
    alone[4, 5] = 3.0
    assert np.isnan(find_structure_significance(alone, *pairs))


def test_single_and_double_precision_and_read_only_arrays_say_the_same(pairs):
    hit = (noise(1) + features(1, 10))[0].astype(np.float32)
    frozen = hit.copy()
    frozen.flags.writeable = False
    assert find_structure_significance(hit, *pairs) == find_structure_significance(frozen, *pairs)
    assert find_structure_significance(hit, *pairs) == find_structure_significance(hit.astype(float), *pairs)


# which pairs ------------------------------------------------------------------------------------------------------


def distances(lags):
    angle = 2 * np.pi * lags[:, 1] / BINS
    apart = np.full((len(lags), len(Q)), np.inf)
    for row, (ring_lag, _) in enumerate(lags):
        for ring in range(len(Q) - ring_lag):
            near, far = Q[ring], Q[ring + ring_lag]
            apart[row, ring] = np.hypot(far * np.cos(angle[row]) - near, far * np.sin(angle[row]))
    return apart


def test_near_pairs_weigh_by_their_distance_in_reciprocal_space_and_far_pairs_take_off_as_much(pairs):
    lags, weights = pairs
    apart = distances(lags)
    is_near = weights > 0
    assert apart[is_near].max() <= 2.5 * SCALE
    np.testing.assert_allclose(weights[is_near], np.exp(-0.5 * (apart[is_near] / SCALE) ** 2), rtol=1e-9)
    is_far = weights < 0
    assert apart[is_far].min() >= 3.5 * SCALE - 1e-12
    assert apart[is_far].max() < 6 * SCALE + 1e-12
    np.testing.assert_allclose(weights.sum(axis=0), 0, atol=1e-12)
    assert (weights[:, :-5] > 0).any(axis=0).all()


def test_every_pair_counts_once_and_no_bin_is_paired_with_itself_or_with_nothing(pairs):
    lags, weights = pairs
    assert len({tuple(lag) for lag in lags.tolist()}) == len(lags)
    assert (lags[:, 0] >= 0).all()
    assert (lags[lags[:, 0] == 0, 1] > 0).all()
    for ring_lag, of_rings in zip(lags[:, 0], weights, strict=True):
        assert not of_rings[len(Q) - ring_lag :].any()


def test_more_azimuths_are_near_at_low_q_than_at_high_q(pairs):
    lags, weights = pairs
    along = lags[:, 0] == 0
    near = (weights[along] > 0).sum(axis=0)
    assert near[0] >= 3
    assert near[-1] == 0


@pytest.mark.parametrize("bins", [3, 7, 8])
def test_few_bins_are_no_reason_to_stop(bins):
    lags, weights = weigh_pairs(np.array([0.1, 0.16, 0.22]), bins, 0.1)
    assert weights.shape == (len(lags), 3)
    assert (np.abs(lags[:, 1]) <= bins // 2).all()


def test_a_scale_finer_than_the_bins_leaves_no_pair():
    lags, weights = weigh_pairs(Q, BINS, 1e-3)
    assert not (weights > 0).any()
    assert lags.shape == (len(weights), 2)
