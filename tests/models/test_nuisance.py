import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from diffdask.errors import BadParameter
from diffdask.models.nuisance import NuisanceComponents

SHAPE = (12, 36)


def noise(count=120, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *SHAPE))


def smooth_pattern(seed, shape=SHAPE):
    """A pattern on the detector, of unit rms."""
    random = np.random.default_rng(seed)
    ring, azimuth = np.mgrid[: shape[0], : shape[1]]
    waves = [
        random.normal() * np.cos(a * azimuth * 2 * np.pi / shape[1] + random.uniform(0, 6)) * np.cos(r * ring / 4)
        for a in range(1, 4) for r in range(3)
    ]  # fmt: skip
    pattern = np.sum(waves, axis=0)
    return pattern / np.sqrt((pattern**2).mean())


def share_of(values, pattern):
    """Amplitude of a pattern in each hit, by least squares over the bins present."""
    present = np.isfinite(values)
    product = np.where(present, values, 0) * pattern
    return product.sum(axis=(1, 2)) / (present * pattern**2).sum(axis=(1, 2))


@pytest.fixture(scope="module")
def run_of_hits():
    """120 hits of one run: noise, a pattern that all share with varying strength, and a fixed one."""
    random = np.random.default_rng(1)
    strength = random.normal(scale=0.6, size=120)
    values = noise() + strength[:, None, None] * smooth_pattern(2) + 1.5 * smooth_pattern(3)
    values[random.uniform(size=values.shape) < 0.1] = np.nan
    return values, strength, np.ones(120, int)


@pytest.mark.parametrize("how", ["fit_transform", "fit and transform"])
def test_patterns_fixed_to_the_detector_disappear(run_of_hits, how):
    values, strength, runs = run_of_hits
    model = NuisanceComponents(component_count=4)
    cleaned = (
        model.fit_transform(values, runs) if how == "fit_transform" else model.fit(values, runs).transform(values, runs)
    )
    assert np.abs(np.corrcoef(share_of(values, smooth_pattern(2)), strength)[0, 1]) > 0.95
    assert np.std(share_of(cleaned, smooth_pattern(2))) < 0.1 * np.std(strength)
    assert abs(np.mean(share_of(cleaned, smooth_pattern(3)))) < 0.05
    assert np.nanstd(cleaned) == pytest.approx(0.9, abs=0.1), "the noise stays"


def test_the_signal_of_a_single_hit_survives_when_it_is_cleaned_with_components_of_others():
    """Of few hits, a hit's own signal makes a component, and is lost if the hit is cleaned with it."""
    values, runs = noise(40, seed=4), np.ones(40, int)
    signal = 1.4 * smooth_pattern(5)
    values[17] += signal
    model = NuisanceComponents(component_count=10)
    cross = share_of(model.fit_transform(values, runs)[[17]], signal)[0]
    plain = share_of(model.fit(values, runs).transform(values, runs)[[17]], signal)[0]
    before = share_of(model._prepare(values, runs)[[17]], signal)[0]
    assert cross > 0.9 * before
    assert plain < 0.5 * before


def test_signals_of_single_hits_survive_among_many(run_of_hits):
    values, _, runs = run_of_hits
    random = np.random.default_rng(6)
    with_signal = values.copy()
    kept = []
    for hit in range(0, 120, 20):
        ring, azimuth = np.mgrid[: SHAPE[0], : SHAPE[1]]
        blob = 3 * np.exp(-((ring - random.integers(12)) ** 2 + (azimuth - random.integers(6, 30)) ** 2) / 6)
        with_signal[hit] += blob
        model = NuisanceComponents()
        after = [share_of(model.fit_transform(v, runs)[[hit]], blob)[0] for v in (with_signal, values)]
        before = [share_of(model._prepare(v, runs)[[hit]], blob)[0] for v in (with_signal, values)]
        kept.append((after[0] - after[1]) / (before[0] - before[1]))
        with_signal[hit] = values[hit]
    assert np.mean(kept) > 0.85


def test_a_loud_hit_owns_no_component():
    values, runs = noise(60), np.ones(60, int)
    random = np.random.default_rng(9)
    loud = random.choice([-4.2, 0.0, 4.2], p=[0.17, 0.66, 0.17], size=SHAPE)
    values[3] = loud + 0.9 * values[3]
    values += random.normal(scale=0.6, size=60)[:, None, None] * smooth_pattern(2)
    components = NuisanceComponents(component_count=3).fit(values, runs).components_

    def share_described(pattern):
        return ((components @ pattern.ravel()) ** 2).sum() / (pattern**2).sum()

    assert share_described(smooth_pattern(2)) > 0.8
    assert share_described(loud) < 0.3


def test_components_are_orthonormal_and_those_of_a_singular_value_decomposition():
    for count in (40, 1000):  # fewer and more hits than bins
        model = NuisanceComponents(component_count=5, clip=1e9).fit(noise(count) * 0.5, np.ones(count, int))
        values = noise(count) * 0.5
        centred = values - np.median(values, axis=0)
        expected = np.linalg.svd(centred.reshape(count, -1), full_matrices=False)[2][:5]
        np.testing.assert_allclose(model.components_ @ model.components_.T, np.eye(5), atol=1e-8)
        np.testing.assert_allclose(np.abs((model.components_ * expected).sum(axis=1)), 1, atol=1e-6)


def test_there_are_at_most_a_quarter_as_many_components_as_hits():
    for count, expected in ((3, 0), (4, 1), (39, 9), (200, 16)):
        assert len(NuisanceComponents(16).fit(noise(count), np.ones(count, int)).components_) == expected


def test_missing_bins_stay_missing_and_bins_past_the_clip_become_so(run_of_hits):
    values, _, runs = run_of_hits
    spiked = values.copy()
    spiked[4, 5, 6] = 60
    for model in (NuisanceComponents(), NuisanceComponents(clip=3.0)):
        cleaned = model.fit_transform(spiked, runs)
        assert np.isnan(cleaned[np.isnan(spiked)]).all()
        assert np.isnan(cleaned[4, 5, 6])
        assert np.isfinite(cleaned).mean() > 0.85
    assert np.nanmax(np.abs(model._prepare(spiked, runs))) <= 3.0


def test_each_run_has_its_own_median_and_a_run_of_few_hits_that_of_all():
    values = noise(50)
    runs = np.array([1] * 23 + [2] * 23 + [3] * 4)
    values[runs == 1] += 2 * smooth_pattern(1)
    values[runs == 2] -= 2 * smooth_pattern(1)
    model = NuisanceComponents(component_count=0)
    cleaned = model.fit_transform(values, runs)
    for run in (1, 2):
        np.testing.assert_allclose(model.run_median_[run], np.median(values[runs == run], axis=0))
        assert abs(share_of(cleaned[runs == run], smooth_pattern(1)).mean()) < 0.1
    assert 3 not in model.run_median_
    np.testing.assert_allclose(model.overall_median_, np.median(values, axis=0))
    unseen = model.transform(values[:1], np.array([99]))
    np.testing.assert_allclose(unseen, model.transform(values[:1], np.array([3])))


def test_the_median_is_that_of_what_is_present(run_of_hits):
    values, _, runs = run_of_hits
    values = values.copy()
    values[:, 0, 0] = np.nan
    model = NuisanceComponents().fit(values, runs)
    assert np.isnan(model.run_median_[1][0, 0])
    expected = np.array([np.nanmedian(column) for column in values.reshape(120, -1).T[1:]])
    np.testing.assert_allclose(model.run_median_[1].ravel()[1:], expected)


def test_the_seed_makes_the_folds_and_nothing_else(run_of_hits):
    values, _, runs = run_of_hits
    one, again, other = (NuisanceComponents(seed=seed).fit_transform(values, runs) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert np.nanmax(np.abs(one - other)) > 1e-3
    assert np.nanstd(one - other) < 0.3


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_hits_or_none_are_no_reason_to_stop(count):
    values, runs = noise(count), np.ones(count, int)
    model = NuisanceComponents(16)
    assert model.fit_transform(values, runs).shape == values.shape
    assert model.transform(values, runs).shape == values.shape
    assert model.components_.shape == (count // 4, np.prod(SHAPE))


def test_a_hit_without_bins_stays_empty_and_spoils_no_other(run_of_hits):
    values, _, runs = run_of_hits
    with_empty = values.copy()
    with_empty[7] = np.nan
    cleaned = NuisanceComponents().fit_transform(with_empty, runs)
    assert np.isnan(cleaned[7]).all()
    assert np.isfinite(cleaned[8]).mean() > 0.8
    assert np.isnan(NuisanceComponents().fit_transform(np.full((20, *SHAPE), np.nan), np.ones(20, int))).all()


def test_it_keeps_to_the_conventions_of_scikit_learn(run_of_hits):
    values, _, runs = run_of_hits
    model = NuisanceComponents(component_count=3, clip=5.0, fold_count=4, seed=2)
    assert clone(model).get_params() == {"component_count": 3, "clip": 5.0, "fold_count": 4, "seed": 2}
    before = values.copy()
    assert model.fit(values, runs) is model
    np.testing.assert_array_equal(values, before)
    with pytest.raises(NotFittedError):
        clone(model).transform(values, runs)


# many hits, hits to come, and how many components ------------------------------------------------------------


def turning_signal(random, count, shape=SHAPE):
    """Blobs of the crystal, elsewhere in every hit, of unit rms over all bins."""
    ring, azimuth = np.mgrid[: shape[0], : shape[1]]
    signal = np.zeros((count, *shape))
    for _ in range(shape[0] // 2):
        at, angle = random.uniform(0, shape[0], (count, 1, 1)), random.uniform(0, shape[1], (count, 1, 1))
        apart = (azimuth - angle + shape[1] / 2) % shape[1] - shape[1] / 2
        signal += random.choice([-1, 1], (count, 1, 1)) * np.exp(-((ring - at) ** 2 + apart**2) / 3)
    return signal / np.sqrt((signal**2).mean(axis=(1, 2), keepdims=True))


@pytest.fixture(scope="module")
def campaign():
    """600 hits of three runs: noise, six patterns of the detector, the crystal's signal in one of ten."""
    random = np.random.default_rng(20)
    strength = random.normal(size=(600, 6)) * [1.0, 0.8, 0.6, 0.5, 0.4, 0.4]
    patterns = np.stack([smooth_pattern(seed) for seed in range(30, 36)])
    runs = np.repeat([1, 2, 3], 200)
    values = noise(600, seed=21) + np.einsum("nk,kra->nra", strength, patterns)
    for run in (1, 2, 3):
        values[runs == run] += smooth_pattern(40 + run)
    signal = np.where((np.arange(600) % 10 == 0)[:, None, None], 0.6 * turning_signal(random, 600), 0.0)
    missing = random.uniform(size=values.shape) < 0.05
    missing[:, 3, :9] = True
    missing[runs == 2, 5:8, 10:14] = True
    return values, signal, missing, runs, patterns


def test_what_is_fixed_to_the_detector_goes_and_what_turns_with_the_crystal_stays():
    """On as many bins as hits have: all components together eat at most a tenth of the crystal's signal."""
    shape, count = (64, 72), 400
    random = np.random.default_rng(22)
    amplitude = random.normal(size=(count, 6)) * [1.0, 0.8, 0.6, 0.5, 0.4, 0.4]
    patterns = np.stack([smooth_pattern(seed, shape) for seed in range(30, 36)])
    bare = random.normal(size=(count, *shape)) + np.einsum("nk,kra->nra", amplitude, patterns)
    bare[random.uniform(size=bare.shape) < 0.1] = np.nan
    signal = 0.6 * turning_signal(random, count // 10, shape)
    observed, runs = bare.copy(), np.ones(count, int)
    observed[::10] += signal
    kept = []
    for model in (NuisanceComponents(), NuisanceComponents(0)):
        cleaned = model.fit_transform(observed, runs)
        kept.append(np.mean(share_of(cleaned[::10], signal) - share_of(model.fit_transform(bare, runs)[::10], signal)))
        if model.component_count:
            assert 6 <= model.component_count_ <= 10
            for pattern in patterns:
                left = np.var(share_of(cleaned, pattern)) - 1 / (0.9 * pattern.size)
                assert left < 0.01 * np.var(share_of(observed, pattern))
    assert kept[0] > 0.9 * kept[1], "kept[1]: loud rings are scaled down first, signal and noise alike"


def test_the_number_of_components_follows_the_nuisances_and_not_the_number_of_hits(campaign):
    values, signal, missing, runs, _ = campaign
    observed = np.where(missing, np.nan, values + signal)
    counts = [NuisanceComponents().fit(observed[::step], runs[::step]).component_count_ for step in (1, 2, 4)]
    assert max(counts) <= 8
    assert min(counts) >= 4
    pure = NuisanceComponents().fit(noise(400), np.ones(400, int))
    assert pure.component_count_ == 0
    assert pure.held_out_variance_ == pytest.approx(1.0, abs=0.3)


def test_bins_that_are_often_missing_are_cleaned_as_well_as_the_others():
    """Filled with zero they would have a component too weak there."""
    random = np.random.default_rng(3)
    strength, pattern = random.normal(scale=1.0, size=300), smooth_pattern(2)
    values = noise(300, seed=4) + strength[:, None, None] * pattern
    often = np.zeros(SHAPE, bool)
    often[:, ::3] = True
    values[(random.uniform(size=300) < 0.5)[:, None, None] & often] = np.nan
    cleaned = NuisanceComponents(2).fit_transform(values, np.ones(300, int))
    has_them = np.isfinite(cleaned[:, often]).any(axis=1)
    left = share_of(np.where(often, cleaned, np.nan)[has_them], pattern)
    assert abs(np.polyfit(strength[has_them], left, 1)[0]) < 0.06


@pytest.mark.parametrize("batch", [600, 120, 17])
def test_learning_hits_as_they_come_is_near_one_fit_to_all(campaign, batch):
    values, signal, missing, runs, _ = campaign
    order = np.random.default_rng(5).permutation(600)
    observed, runs = np.where(missing, np.nan, values + signal)[order], runs[order]
    whole = NuisanceComponents(6).fit(observed, runs)
    bit_by_bit = NuisanceComponents(6)
    for start in range(0, 600, batch):
        bit_by_bit.partial_fit(observed[start : start + batch], runs[start : start + batch])
    assert bit_by_bit.hit_count_.sum() == 600
    assert bit_by_bit.hit_count_.max() - bit_by_bit.hit_count_.min() <= 1
    cosines = np.linalg.svd(whole.components_ @ bit_by_bit.components_.T)[1]
    assert cosines.min() > (1 - 1e-9 if batch == 600 else 0.9)
    for run in (1, 2, 3):
        off = bit_by_bit.run_median_[run] - whole.run_median_[run]
        assert np.nanstd(off) < 0.12, "less than what the median of 200 such hits is known to"
    assert np.nanstd(bit_by_bit.transform(observed, runs) - whole.transform(observed, runs)) < 0.25
    later = NuisanceComponents().fit(observed[:500], runs[:500]).partial_fit(observed[500:], runs[500:])
    assert abs(later.component_count_ - NuisanceComponents().fit(observed, runs).component_count_) <= 1


def test_a_new_run_borrows_the_median_of_all_until_it_has_hits_enough(campaign):
    values, _, _, runs, _ = campaign
    model = NuisanceComponents(2).fit(values[runs < 3], runs[runs < 3])
    third = values[runs == 3]
    for hit in third[:7]:
        model.partial_fit(hit[None], np.array([3]))
    assert 3 not in model.run_median_
    model.partial_fit(third[7:8], np.array([3]))
    np.testing.assert_allclose(model.run_median_[3], np.median(third[:8], axis=0))
    model.partial_fit(third[8:40], np.array([3] * 32))
    expected = (8 * np.median(third[:8], axis=0) + 32 * np.median(third[8:40], axis=0)) / 40
    np.testing.assert_allclose(model.run_median_[3], expected)


def test_hits_are_handled_in_blocks_and_blocks_do_not_matter(campaign, monkeypatch):
    values, signal, missing, runs, _ = campaign
    observed = np.where(missing, np.nan, values + signal)
    whole = NuisanceComponents(6).fit(observed, runs)
    monkeypatch.setattr("diffdask.models.nuisance._BLOCK", 50)
    monkeypatch.setattr("diffdask.models.nuisance._SKETCH_ROWS", 60)
    blocks = NuisanceComponents(6).fit(observed, runs)
    assert all(len(sketch) == 60 for sketch in blocks.sketches_)
    assert np.linalg.svd(whole.components_ @ blocks.components_.T)[1].min() > 0.97
    assert np.nanstd(blocks.transform(observed, runs) - whole.transform(observed, runs)) < 0.1
    np.testing.assert_allclose(blocks.held_out_variance_[:5], whole.held_out_variance_[:5], rtol=0.1)


def test_single_precision_in_is_single_precision_out_and_says_the_same(campaign):
    values, signal, missing, runs, _ = campaign
    observed = np.where(missing, np.nan, values + signal)
    double = NuisanceComponents(6).fit_transform(observed, runs)
    single = NuisanceComponents(6).fit_transform(observed.astype(np.float32), runs)
    assert (double.dtype, single.dtype) == (np.float64, np.float32)
    both = np.isfinite(double) & np.isfinite(single)
    assert both.sum() > 0.999 * np.isfinite(double).sum()
    np.testing.assert_allclose(single[both], double[both], atol=0.02)


def test_what_makes_no_sense_is_refused(campaign):
    values, _, _, runs, _ = campaign
    for wrong in ("many", -1, 2.5):
        with pytest.raises(BadParameter, match=r"component_count = .* must be"):
            NuisanceComponents(wrong).fit(values, runs)
    with pytest.raises(BadParameter, match="fold_count = 1"):
        NuisanceComponents(fold_count=1).fit(values, runs)
    with pytest.raises(BadParameter, match="cannot be learnt"):
        NuisanceComponents(2).fit(values, runs).partial_fit(values[:, :5], runs)
