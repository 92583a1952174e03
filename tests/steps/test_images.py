from functools import partial

import numpy as np
import pytest
import xarray as xr

from diffdask.errors import BadGeometry, BadParameter, MissingVariable
from diffdask.frame_settings import group_settings, setting_columns
from diffdask.geometry import pixel_positions, positions_on_panels
from diffdask.image_map import cover_detector, plan_images
from diffdask.kernels.images import average_residual
from diffdask.models.nuisance import NuisanceComponents
from diffdask.pictures import picture_map
from diffdask.pixels import list_pixels, make_scratch
from diffdask.steps.background import remove_background
from diffdask.steps.images import find_polar_nuisance, render_images, render_polar_images
from diffdask.steps.polar import find_polar_residual
from diffdask.steps.screening import screening_parameters
from diffdask.variables import wrap

HOW = screening_parameters(
    common_mode="none",
    clip_low=5,
    clip_high=5,
    clip_passes=3,
    snr=6,
    threshold=5,
    min_pixels=2,
    max_pixels=30,
    radius=4,
)
SIZE = 32

#: A quarter turn about the beam, from +x towards +y.
TURN = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])


def plan(ds, size=SIZE, **options):
    return plan_images(ds, group_settings(*setting_columns(ds))[0], size=size, **options)


def render(ds, *, size=SIZE, how=HOW, **options):
    """(hit, row, column) for one channel, as numbers about zero, limits at -127 and 127."""
    made = render_images(ds, how=how, maps=plan(ds, size), **options).hit_image.values
    return made[..., 0].astype(int) - 128


def move(columns, turn):
    moved = columns.copy()
    for name in ("panel_corner", "panel_ss_step", "panel_fs_step"):
        moved[name] = columns[name].copy(data=columns[name].values @ turn.T)
    return moved


def place(small, panel, ss, fs):
    """Row and column of a point on a panel, in cells."""
    x, y, _ = positions_on_panels(small.geometry(), np.array(panel), np.array(ss), np.array(fs), camera_length=1.0)
    step = cover_detector(small.geometry()) / SIZE
    return np.array([SIZE / 2 - y / step, SIZE / 2 + x / step])


def with_polar(ds, component_count=0):
    """Polar residuals of hits, these cleaned, and what was taken out; and the model that knows it."""
    made = find_polar_residual(ds, how=HOW, polar_ring_count=10)
    made = ds.merge(made[["polar_residual", "polar_noise"]])
    significance = (made.polar_residual / made.polar_noise).values
    model = NuisanceComponents(component_count=component_count)
    made = made.merge(wrap(cleaned_residual=model.fit_transform(significance, ds.run.values)))
    return made.merge(find_polar_nuisance(made, model=model)), model


@pytest.fixture(scope="module")
def ds(small):
    return small.dataset(small.frames(small.expected(wave=0.2)))


@pytest.fixture(scope="module")
def polar(ds):
    return with_polar(ds)[0]


# the map of shares ---------------------------------------------------------------------------------------


def matrix(image):
    """(p, cells) share of every pixel in every cell."""
    made = np.zeros((image.start.size - 1, image.size**2))
    made[np.repeat(np.arange(len(made)), np.diff(image.start)), image.cell] = image.share
    return made


def test_usable_pixels_are_given_away_whole_and_others_not_at_all(ds):
    (image,) = plan(ds)
    shares = matrix(image).sum(axis=1)
    used = ds.pixel_ring.values[0].ravel() >= 0
    assert 0 < used.sum() < used.size
    np.testing.assert_allclose(shares[used], 1, atol=1e-6)
    assert not shares[~used].any()


def test_the_centre_of_mass_of_a_pixels_shares_is_its_place(small, ds):
    """To half a cell: right is +x, up is +y, the beam in the middle."""
    (image,) = plan(ds)
    x, y = pixel_positions(small.geometry(), camera_length=small.length).reshape(-1, 3)[:, :2].T
    used = image.ring >= 0
    step = cover_detector(small.geometry()) / SIZE
    row, column = np.divmod(np.arange(SIZE**2), SIZE)
    for number, expected in ((column, SIZE / 2 + x / step), (row, SIZE / 2 - y / step)):
        np.testing.assert_allclose((matrix(image) @ (number + 0.5))[used], expected[used], atol=0.51)


def test_up_and_right_are_where_the_pictures_of_the_report_have_them(small, ds):
    (image,), pictured = plan(ds), picture_map(small.geometry())
    used = image.ring >= 0
    ours = matrix(image)[used] @ np.column_stack(np.divmod(np.arange(SIZE**2), SIZE))
    theirs = np.column_stack(np.divmod(pictured.index.ravel()[used], pictured.size))
    for axis in range(2):
        assert np.corrcoef(ours[:, axis], theirs[:, axis])[0, 1] > 0.99


def test_the_shift_of_a_run_moves_its_detector_and_not_the_picture(small):
    shift = 0.01
    columns = small.columns(2, run=np.array([1, 2]), detector_shift=np.array([[0, 0], [shift, 0]]))
    ds = small.dataset(small.frames(small.expected(), count=2), columns=columns)
    still, moved = plan(ds, field_of_view=0.16)
    cells = shift / (0.16 / SIZE)
    column = np.arange(SIZE**2) % SIZE
    change = matrix(moved) @ column - matrix(still) @ column
    used = (still.ring >= 0) & (moved.ring >= 0) & (matrix(moved).sum(axis=1) > 0.999)
    assert np.median(change[used]) == pytest.approx(cells, abs=0.01)


def test_the_field_of_view_just_holds_the_detector(small, ds):
    side = cover_detector(small.geometry())
    assert side == pytest.approx(2 * small.pixel * (66 + 4))
    assert all(matrix(image)[image.ring >= 0].sum(axis=1).min() > 0.999 for image in plan(ds))
    (narrow,) = plan(ds, field_of_view=side / 2)
    assert (matrix(narrow)[narrow.ring >= 0].sum(axis=1) == 0).any()


def test_a_panel_seen_edge_on_is_an_error_that_names_it(small, ds):
    turned = ds.copy()
    turned["panel_fs_step"] = ds.panel_fs_step.copy(data=ds.panel_fs_step.values.copy())
    turned.panel_fs_step.values[2] = [0, 0, small.pixel]
    with pytest.raises(BadGeometry, match="panel 'c' is edge-on"):
        plan(turned)
    with pytest.raises(BadParameter, match="2 settings are given for the maps of 1"):
        plan_images(ds, group_settings(*setting_columns(ds))[0] * 2)
    with pytest.raises(BadParameter, match="size = 2"):
        plan(ds, size=2)


# pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({}, ["adu", "photon_energy", "frame_setting", "pixel_ring", "pixel_azimuth", "ring_q"]),
        ({"cleaned": True}, ["polar_nuisance"]),
        ({"content": "three-channels"}, ["polar_residual", "polar_noise"]),
        ({"content": "three-channels", "cleaned": True}, ["polar_nuisance", "cleaned_residual"]),
    ],
)
def test_render_images_is_a_step(small, polar, options, needed):
    small.check_step(partial(render_images, how=HOW, maps=plan(polar), **options), polar, needed)


def test_what_is_said_of_a_frame_does_not_depend_on_the_others(small):
    small.check_frames_alone(lambda ds: render_images(ds, how=HOW, maps=plan(ds)))


@pytest.mark.parametrize("size", [16, 45])
def test_a_picture_is_the_residual_assembled_by_brute_force(small, size):
    """Every pixel cut into 24 x 24 points, assembled, averaged, and standardised as a whole with NumPy."""
    ds = small.dataset(small.frames(small.expected(wave=0.2), spots=0, count=2))
    made = render(ds, size=size, normalise="frame", limit=6.0)
    residual = remove_background(ds, common_mode="none", clip_low=1e9, clip_high=1e9).residual.values
    step, times = cover_detector(small.geometry()) / size, 24
    panel = np.arange(4)[:, None, None]
    ss, fs = ((np.arange(n * times) + 0.5) / times for n in small.shape)
    x, y, _ = np.moveaxis(positions_on_panels(small.geometry(), panel, ss[:, None], fs, camera_length=1.0), -1, 0)
    cell = (np.floor(size / 2 - y / step) * size + np.floor(size / 2 + x / step)).astype(int)
    for hit in range(2):
        fine = residual[hit].repeat(times, axis=1).repeat(times, axis=2)
        seen = np.isfinite(fine)
        count = np.bincount(cell[seen], minlength=size**2)
        total = np.bincount(cell[seen], fine[seen].astype(float), size**2)
        is_there = count / times**2 * (small.pixel / step) ** 2 >= 0.25
        mean = total[is_there] / count[is_there]
        standard = (mean - np.median(mean)) / (1.4826 * np.median(np.abs(mean - np.median(mean))))
        expected = np.zeros(size**2)
        expected[is_there] = 127 * np.clip(standard / 6, -1, 1)
        off = np.abs(made[hit].ravel() - expected)
        assert np.quantile(off, 0.99) < 1.2  # cells on the edge of being gaps may be judged otherwise
        assert np.median(off) < 0.6


def test_a_constant_residual_is_a_constant_picture(small, ds):
    """Photons of a constant, less rings of another: what shape and cover a cell has does not matter."""
    (image,), pixels = plan(ds, size=45), list_pixels(ds)
    adu = np.float64(3.7) / pixels[0].factor
    scratch, mean = make_scratch(pixels, (4, *small.shape), 40), np.full(40, 1.2)
    scratch.deviation[:] = 1.0
    scratch.touched.fill(-1)
    residual, noise = np.empty(45 * 45, np.float32), np.empty(45 * 45, np.float32)
    gain, sums = np.ones(4, np.float32), np.empty((45 * 45, 3))
    average_residual(adu, (4, *small.shape), pixels[0], image, gain, scratch, mean, sums, 0.1, residual, noise)
    seen = np.isfinite(residual)
    assert 1000 < seen.sum() < 45 * 45
    np.testing.assert_allclose(residual[seen], 2.5, rtol=1e-6)


def test_an_isotropic_frame_without_noise_is_grey_all_over(small):
    """The same photons in all pixels of a ring, and these without corrections: residual and noise are zero."""
    ds = small.dataset(np.zeros((1, 4, *small.shape), np.int16))
    photons = 50 + ds.pixel_ring.values
    ds = ds.assign(adu=ds.adu.copy(data=4 * photons), pixel_correction=xr.ones_like(ds.pixel_correction))
    ds = ds.assign(adu=ds.adu.astype(np.int16))
    for content, normalise in (("residual", "frame"), ("residual", "ring"), ("significance", "none")):
        assert (render(ds, content=content, normalise=normalise) == 0).all()


def test_turning_the_detector_by_a_quarter_turns_the_picture(small, ds):
    columns = small.columns()
    turned = small.dataset(ds.adu.values, columns=move(columns, TURN))
    straight, rotated = render(ds), render(turned)
    assert np.abs(rotated - np.rot90(straight, axes=(1, 2))).max() <= 1
    assert np.abs(rotated - straight).max() > 20


def test_the_order_of_panels_does_not_matter(small, ds):
    order = [2, 0, 3, 1]
    shuffled = small.dataset(ds.adu.values[:, order], columns=small.columns().isel(panel=order))
    assert np.abs(render(shuffled) - render(ds)).max() <= 1


@pytest.mark.parametrize("value", [-30000, 0, 32000])
def test_masked_pixels_never_enter(ds, value):
    adu = ds.adu.values.copy()
    adu[:, ~ds.pixel_is_good.values] = value
    np.testing.assert_array_equal(render(ds.assign(adu=ds.adu.copy(data=adu))), render(ds))


def test_how_bright_a_bragg_spot_is_does_not_matter(small):
    adu = small.frames(small.expected(), spots=0, count=2)
    for brightness in (400, 4000):
        adu[0, 2, 30:33, 30:33] = brightness
        shown = render(small.dataset(adu), content="significance", normalise="none", limit=6.0)
        if brightness == 400:
            first = shown
    np.testing.assert_array_equal(shown, first)
    assert np.abs(shown).max() < 127


@pytest.mark.parametrize(("panel", "ss", "fs"), [(0, 40, 20), (1, 50, 40), (2, 20, 50), (3, 30, 30)])
def test_a_feature_lands_where_the_geometry_says(small, panel, ss, fs):
    expected = small.expected()[None].copy()
    expected[0, panel, ss - 4 : ss + 4, fs - 4 : fs + 4] *= 1.6  # too faint to be a peak
    shown = render(small.dataset(small.frames(expected, count=1, spots=0)), content="significance", limit=20.0)
    brightest = np.array(np.unravel_index(shown[0].argmax(), (SIZE, SIZE)))
    np.testing.assert_allclose(brightest + 0.5, place(small, panel, ss, fs), atol=1.5)


def test_the_noise_of_a_cell_is_that_of_counting_whatever_polarisation_took(small):
    adu = small.frames(small.expected(polarisation=0.98), spots=0, count=8)
    ds = small.dataset(adu, polarisation_fraction=0.98)
    shown = render(ds, content="significance", normalise="none", limit=127.0 / 25)[:, 2:-2, 2:-2] / 25
    covered = (shown != 0).mean(axis=0) > 0.8
    spread = np.sqrt((shown**2).mean(axis=0))
    assert np.sqrt((spread[covered] ** 2).mean()) == pytest.approx(1, abs=0.04)
    rows, columns = np.indices(spread.shape) - spread.shape[0] / 2 + 0.5
    for sector in (np.abs(rows) > 2 * np.abs(columns), np.abs(columns) > 2 * np.abs(rows)):
        assert np.sqrt((spread[covered & sector] ** 2).mean()) == pytest.approx(1, abs=0.06)


def test_cells_that_are_hardly_covered_are_gaps_and_grey(small, ds):
    some, all_of_it = (render(ds, least_cover=share) for share in (0.01, 0.99))
    assert (all_of_it == 0).sum() > (some == 0).sum() + 100
    assert (some[:, SIZE // 2 - 1 : SIZE // 2 + 1, SIZE // 2 - 1 : SIZE // 2 + 1] == 0).all(), "the hole for the beam"


def test_frames_that_cannot_be_read_are_grey(ds):
    spoilt = ds.assign(adu=ds.adu.astype(np.float32).copy())
    spoilt.adu.values[1] = np.nan
    shown = render(spoilt)
    assert (shown[1] == 0).all()
    np.testing.assert_array_equal(shown[[0, 2]], render(ds)[[0, 2]])


# what the run shares ---------------------------------------------------------------------------------------


def test_the_nuisance_of_a_model_without_components_is_the_median_of_the_run(small):
    ds = small.dataset(small.frames(small.expected(wave=0.2), count=20), columns=small.columns(20))
    made, model = with_polar(ds)
    expected = model.run_median_[1] * made.polar_noise.values
    known = np.isfinite(made.cleaned_residual.values)
    assert known.mean() > 0.5
    np.testing.assert_array_equal(np.isfinite(made.polar_nuisance.values), known)
    np.testing.assert_allclose(made.polar_nuisance.values[known], expected[known], atol=2e-5)


def test_a_pattern_of_the_detector_is_seen_and_goes_when_it_is_taken_out(small):
    """A gain of one panel that differs from frame to frame, and a feature of one frame, which stays."""
    gain = 1 + np.random.default_rng(0).normal(scale=0.1, size=24)
    expected = np.repeat(small.expected(12.0)[None], 24, axis=0)
    expected[:, 1] *= gain[:, None, None]
    expected[7, 3, 24:36, 24:36] *= 1.25
    ds = small.dataset(small.frames(expected, count=24, spots=0), columns=small.columns(24))
    ds, _ = with_polar(ds, component_count=2)
    raw, clean = (render(ds, content="significance", normalise="none", cleaned=c) for c in (False, True))
    panel = slice(None), slice(0, SIZE // 2), slice(0, SIZE // 2)  # panel 1: x < 0, y > 0
    before, after = (shown[panel].mean(axis=(1, 2)) for shown in (raw, clean))
    assert np.corrcoef(before, gain)[0, 1] > 0.95
    assert after.std() < 0.15 * before.std()
    row, column = place(small, 3, 30, 30).astype(int)
    feature = slice(row - 1, row + 2), slice(column - 1, column + 2)
    others = np.delete(clean[(slice(None), *feature)].mean(axis=(1, 2)), 7)
    assert clean[(7, *feature)].mean() > 4 * others.std()


# several channels, and polar pictures -------------------------------------------------------------------------


def test_three_channels_are_the_residual_its_pooled_significance_and_the_agreement_of_neighbours(small, polar):
    made = render_images(polar, how=HOW, maps=plan(polar), content="three-channels").hit_image.values.astype(int) - 128
    assert made.shape == (6, SIZE, SIZE, 3)
    np.testing.assert_array_equal(made[..., 0], render(polar))
    gap = made[..., 0] == 0
    assert (made[gap][:, 1] == 0).mean() > 0.9
    single = render(polar, content="significance", normalise="none")
    assert np.corrcoef(single[~gap], made[~gap][:, 1])[0, 1] > 0.6
    assert np.abs(made[..., 1]).mean() > 1.5 * np.abs(single).mean(), "a wave adds up, noise does not"
    assert made[..., 2][~gap].mean() > 15, "bins of a wave agree"
    quiet, _ = with_polar(small.dataset(small.frames(small.expected())))
    noise = render_images(quiet, how=HOW, maps=plan(quiet), content="three-channels").hit_image.values[..., 2] - 128.0
    assert abs(noise[noise != 0].mean()) < 5


def test_polar_pictures_have_azimuth_to_the_right_and_q_upwards():
    significance = np.zeros((1, 10, 24))
    significance[0, 8, 4:6] = 3.0
    significance[0, 2, 18:20] = -3.0
    significance[0, 5, 10:14] = np.nan
    ds = wrap(cleaned_residual=significance)
    made = (
        render_polar_images(ds, cleaned=True, normalise="none", size=240).hit_image.values[0, ..., 0].astype(int) - 128
    )
    assert made.shape == (240, 240)
    for extreme, (ring, azimuth) in ((made.max(), (8, 5)), (made.min(), (2, 19))):
        row, column = np.argwhere(made == extreme).mean(axis=0) + 0.5
        assert (row, column) == (pytest.approx(240 - (ring + 0.5) * 24, abs=1), pytest.approx(azimuth * 10, abs=1))
    assert made.max() == -made.min() == pytest.approx(127 * 3 / 4, abs=3)


def test_render_polar_images_is_lazy_and_blocks_do_not_matter(polar):
    made = render_polar_images(polar, size=24)
    for cleaned, needed in ((False, "polar_noise"), (True, "cleaned_residual")):
        chunked = render_polar_images(polar.chunk({"hit": 2}), size=24, cleaned=cleaned)
        assert hasattr(chunked.hit_image.data, "dask")
        xr.testing.assert_identical(chunked.compute(), render_polar_images(polar, size=24, cleaned=cleaned))
        with pytest.raises(MissingVariable, match=needed):
            render_polar_images(polar.drop_vars(needed), cleaned=cleaned)
    assert made.hit_image.shape == (6, 24, 24, 1)
    assert made.hit_image.dtype == np.uint8


def test_a_ring_is_put_to_unit_spread_on_its_own():
    random = np.random.default_rng(3)
    significance = random.normal(size=(1, 10, 24)) * np.linspace(1, 20, 10)[:, None]
    ds = wrap(cleaned_residual=significance)
    shown = {
        how: render_polar_images(ds, cleaned=True, normalise=how, size=240).hit_image.values[0, ..., 0] - 128.0
        for how in ("ring", "frame")
    }
    for how, ratio in (("ring", (0.5, 2.0)), ("frame", (6.0, 60.0))):
        inner, outer = (np.median(np.abs(shown[how][rows])) for rows in (slice(220, 240), slice(0, 20)))
        assert ratio[0] < outer / inner < ratio[1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"content": "residuals"}, "did you mean 'residual'"),
        ({"normalise": "rings"}, "did you mean 'ring'"),
        ({"normalise": "none"}, "no common limit"),
        ({"limit": 0.0}, "limit = 0 must be positive"),
        ({"least_cover": 1.5}, "least_cover = 1.5"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(ds, options, told):
    with pytest.raises(BadParameter, match=told):
        render_images(ds, how=HOW, maps=plan(ds), **options)
