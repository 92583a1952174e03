"""Haloes on the small detector: a crystal of a small cell, so that its lattice points lie several pixels apart."""

import numpy as np
import pytest
import xarray as xr

from diffdask.errors import BadParameter
from diffdask.frame_settings import group_settings, setting_columns
from diffdask.geometry import pixel_positions, reciprocal_points, wavelength
from diffdask.kernels.residual import Screening
from diffdask.pixels import list_pixels
from diffdask.simulate.crystal import draw_rotation
from diffdask.simulate.indexing import turn_about
from diffdask.steps.haloes import find_directions, find_haloes
from diffdask.variables import wrap

CELL, HALO, MOSAICITY = np.array([30.0, 34.0, 38.0]), 14.0, 5e-3
HOW = Screening(
    common_mode_share=-1.0, clip_low=5.0, clip_high=5.0, clip_passes=3, ring_pixels=20, snr=6.0, threshold=5.0,
    min_pixels=1, max_pixels=30, radius=4, wing=1,
)  # fmt: skip
LOOKING = {"halo_length": HALO, "halo_reach": 0.015, "shell_count": 6}
SETTINGS = [(0.08, 9500.0, 0.0, 0.0)]  # of the small detector
HITS, DIFFUSE = 8, np.array([True, False] * 4)


def look(ds, **options):
    return find_haloes(ds, how=HOW, settings=SETTINGS, **{**LOOKING, **options})


def render(small, axes, crest, random):
    """Photons (panel, ss, fs) of one hit: background, Bragg spots of one pixel and more, haloes of this crest."""
    geometry = small.geometry()
    points = reciprocal_points(pixel_positions(geometry, camera_length=small.length), small.energy)
    nearest = np.rint(points @ np.linalg.inv(axes)) @ axes
    far2 = ((points - nearest) ** 2).sum(axis=-1)
    s2 = (nearest**2).sum(axis=-1)
    depth = nearest[..., 2] + 0.5 * wavelength(small.energy) * s2
    across2 = np.maximum(far2 - depth**2, 0)
    pixel = small.pixel / small.length / wavelength(small.energy)
    spots = 400 * np.exp(-0.5 * depth**2 / (MOSAICITY**2 * s2 + 1e-8) - 0.5 * across2 / (0.6 * pixel) ** 2)
    haloes = crest / (1 + (2 * np.pi * HALO) ** 2 * far2) ** 2
    return random.poisson(6.0 + (spots + haloes) * (s2 > 0))


@pytest.fixture(scope="module")
def crystals():
    """Axes (hit, 3, xyz) as they are."""
    random = np.random.default_rng(2)
    return np.stack([np.diag(1 / CELL) @ draw_rotation(random).T for _ in range(HITS)])


@pytest.fixture(scope="module")
def hits(small, crystals):
    """Hits, every other one diffuse, with orientations that are off by half a degree."""
    random = np.random.default_rng(1)
    photons = [render(small, axes, 12.0 * diffuse, random) for axes, diffuse in zip(crystals, DIFFUSE, strict=True)]
    off = [axes @ turn_about(random.normal(scale=0.005, size=3)).T for axes in crystals]
    columns = small.columns(HITS).merge(
        wrap(orientation=np.stack(off), lattice=np.array(["orthorhombic P *"] * HITS, dtype=object))
    )
    return small.dataset(np.round(4.0 * np.stack(photons)).astype(np.int16), columns=columns, azimuth_count=16)


@pytest.fixture(scope="module")
def made(hits):
    return look(hits)


def test_hits_with_haloes_stand_out(made):
    halo = made.hit_halo.values
    assert halo[DIFFUSE].min() > halo[~DIFFUSE].max() + 1
    assert halo[DIFFUSE].mean() > 5
    assert abs(halo[~DIFFUSE].mean()) < 2.5
    assert (made.lattice_share.values > 0.9).all()


def test_the_profile_rises_towards_lattice_points_where_there_are_haloes(made):
    profile, noise = made.halo_profile.values, made.halo_noise.values
    assert made.halo_profile.dims == ("hit", "halo_shell")
    np.testing.assert_allclose(np.diff(made.halo_distance), 0.0025)
    some = np.isfinite(profile).all(axis=0) & (noise < 1).all(axis=0)
    first = int(np.flatnonzero(some)[0])
    assert (profile[DIFFUSE, first] > 3 * noise[DIFFUSE, first]).all()
    assert profile[DIFFUSE][:, -1].mean() < profile[DIFFUSE][:, first].mean() / 3


def test_peaks_turn_the_orientation_to_where_it_is(made, hits, crystals):
    for found, given, true in zip(made.refined_orientation.values, hits.orientation.values, crystals, strict=True):
        off = [np.arccos((np.trace(np.linalg.inv(true) @ axes) - 1) / 2) for axes in (found, given)]
        assert off[0] < 0.0015
        assert off[0] < off[1]
        np.testing.assert_allclose(found @ found.T, given @ given.T, atol=1e-12)


def test_half_way_between_lattice_points_there_is_chance_only(hits):
    halo = look(hits, lattice_shift=0.5).hit_halo.values
    assert np.abs(halo[~DIFFUSE].mean()) < 2
    assert halo.max() < 4


def test_the_length_need_not_be_known(hits, made):
    for length in (0.5 * HALO, 2 * HALO):
        halo = look(hits, halo_length=length).hit_halo.values
        assert halo[DIFFUSE].min() > halo[~DIFFUSE].max()


def test_hits_without_a_lattice_have_no_score_and_are_left_alone(hits, made):
    orientation, lattice = hits.orientation.values.copy(), hits.lattice.values.copy()
    orientation[2], lattice[2] = np.nan, ""
    orientation[5] = orientation[5] @ turn_about(np.array([0.3, 0.5, 0.4])).T
    found = look(hits.assign(wrap(orientation=orientation, lattice=lattice)))
    others = [0, 1, 3, 4, 6, 7]
    xr.testing.assert_identical(found.isel(hit=others), made.isel(hit=others))
    for name in ("hit_halo", "halo_crest", "hit_mosaicity", "halo_profile", "halo_noise", "refined_orientation"):
        assert np.isnan(found[name].values[[2, 5]]).all()
    assert np.isnan(found.lattice_share.values[2])
    assert found.lattice_share.values[5] < 0.3


def test_blank_frames_have_no_lattice(small, hits):
    blank = np.random.default_rng(0).poisson(6.0, size=hits.adu.shape) * 4
    found = look(hits.assign(adu=hits.adu.copy(data=blank.astype(np.int16))))
    assert np.isnan(found.hit_halo.values).all()


def test_it_keeps_what_every_step_promises(small, hits):
    small.check_step(look, hits, needed=("adu", "orientation", "lattice", "photon_energy", "ring_q", "frame_setting"))
    assert group_settings(*setting_columns(hits))[0] == SETTINGS
    pixels = list_pixels(hits)
    directions = find_directions(small.geometry(), pixels, SETTINGS)
    xr.testing.assert_identical(look(hits, pixels=pixels, directions=directions), look(hits))
    assert look(hits.isel(frame=slice(0))).sizes["hit"] == 0


def test_what_makes_no_sense_is_refused(hits):
    for options in ({"halo_length": 0.0}, {"spot_guard": -1.0}, {"halo_reach": 0.0}, {"shell_count": 0}):
        with pytest.raises(BadParameter, match="above 0"):
            look(hits, **options)
    with pytest.raises(BadParameter, match="lattice_shift = 1"):
        look(hits, lattice_shift=1.0)
    with pytest.raises(BadParameter, match="no ring lies above halo_q_min = 99"):
        look(hits, halo_q_min=99.0)
    with pytest.raises(BadParameter, match="'cubic' names no centring"):
        look(hits.assign(wrap(lattice=np.array(["cubic"] * HITS, dtype=object))))
