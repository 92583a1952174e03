"""A small detector around the beam and frames on it, as the frames store would give them."""

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from diffdask.geometry import Geometry, momentum_transfer, pixel_positions, polarisation_factor, solid_angle_factor
from diffdask.pixels import list_pixels
from diffdask.steps.layout import lay_out_rings
from diffdask.variables import STATUS_OK, wrap

#: Four panels of 60 x 66 pixels of 0.8 mm, each the one before turned by a right angle about the beam.
PIXEL, SHAPE, LENGTH, ENERGY = 8e-4, (60, 66), 0.08, 9500.0


def small_geometry(adu_per_photon=4.0):
    """Rotating it by 90 degrees about the beam turns panel n into panel n + 1."""
    corner, ss, fs = np.array([4, 5, 0.0]), np.array([0, 1, 0.0]), np.array([1, 0, 0.0])
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    turns = [np.linalg.matrix_power(turn, n) for n in range(4)]
    return Geometry(
        panel_name=tuple("abcd"),
        shape=SHAPE,
        corner=PIXEL * np.array([t @ corner for t in turns]),
        ss_step=PIXEL * np.array([t @ ss for t in turns]),
        fs_step=PIXEL * np.array([t @ fs for t in turns]),
        adu_per_ev=np.full(4, np.nan),
        adu_per_photon=np.full(4, adu_per_photon),
    )


def make_columns(count=6, geometry=None, **columns):
    """Detector and columns of usable frames, without ``adu``."""
    geometry = geometry or small_geometry()
    good = np.ones((4, *SHAPE), bool)
    good[1, 20:30, 10:20] = False
    plain = {
        "pixel_is_good": good,
        "pixel_is_wide": np.zeros_like(good),
        "photon_energy": np.full(count, ENERGY),
        "camera_length": np.full(count, LENGTH),
        "run": np.ones(count, int),
        "detector_shift": np.full((count, 2), np.nan),
        "frame_status": np.array([STATUS_OK] * count, dtype=object),
    }
    return wrap(**{**plain, **columns}).merge(geometry.to_dataset())


def expected_photons(level=6.0, wave=0.0, polarisation=0.0):
    """(panel, ss, fs) photons: isotropic with a broad ring, times 1 + wave cos(2 azimuth), as the detector sees it."""
    positions = pixel_positions(small_geometry(), camera_length=LENGTH)
    q = momentum_transfer(positions, ENERGY)
    angle = np.arctan2(positions[..., 1], positions[..., 0])
    profile = level * (0.6 + np.exp(-(((q - 2) / 0.8) ** 2)))
    seen = polarisation_factor(positions, fraction=polarisation)
    seen *= solid_angle_factor(small_geometry(), positions, camera_length=LENGTH)
    return profile * (1 + wave * np.cos(2 * angle)) * seen


def make_frames(expected, count=6, seed=0, adu_per_photon=4.0, spots=25):
    """(frame, panel, ss, fs) int16 ADU with Bragg spots."""
    random = np.random.default_rng(seed)
    expected = np.broadcast_to(expected, (count, 4, *SHAPE)).copy()
    for frame in range(count):
        for panel, ss, fs in zip(*(random.integers(size, size=spots) for size in (4, *SHAPE)), strict=True):
            expected[frame, panel, ss : ss + 2, fs : fs + 2] += random.uniform(20, 200)
    return np.round(adu_per_photon * random.poisson(expected)).astype(np.int16)


def make_dataset(adu, chunks=None, columns=None, **layout):
    """Frames with their layout, Dask-backed if chunks are given; 40 rings and 24 azimuths unless said."""
    columns = make_columns(len(adu)) if columns is None else columns
    layout = {"ring_count": 40, "azimuth_count": 24, "polarisation_fraction": 0.0, **layout}
    ds = wrap(adu=adu).merge(columns).merge(lay_out_rings(columns, **layout))
    return ds if chunks is None else ds.chunk({"frame": chunks})


def check_step(step, ds, needed):
    """Assert what every step promises: lazy, chunking does not matter, only new variables, says what is missing.

    ``ds`` is in memory; ``needed`` are the variables that the step cannot do without.
    """
    from diffdask.errors import MissingVariable

    made = step(ds)
    assert not set(made.variables) & set(ds.data_vars) - {"frame_status"}, "only new variables"

    def explode(block):
        raise AssertionError("the step computed")

    lazy = ds.assign(adu=ds.adu.chunk({"frame": 2}).copy(data=ds.adu.chunk({"frame": 2}).data.map_blocks(
        explode, dtype=ds.adu.dtype, meta=np.empty((0,) * 4, ds.adu.dtype)
    )))  # fmt: skip
    assert any(hasattr(variable.data, "dask") for variable in step(lazy).variables.values())
    for chunks in (1, 4, ds.sizes["frame"]):
        xr.testing.assert_identical(step(ds.assign(adu=ds.adu.chunk({"frame": chunks}))).compute(), made)
    for dtype in ("int32", "float32", "float64"):
        xr.testing.assert_identical(step(ds.assign(adu=ds.adu.astype(dtype))), made)
    for name in needed:
        with pytest.raises(MissingVariable, match=rf"lacks .*'{name}'.*made by '\w+'"):
            step(ds.drop_vars(name))
    with_pixels = step(ds, pixels=list_pixels(ds))
    xr.testing.assert_identical(with_pixels, made)


def check_frames_alone(step):
    """Assert that frames of other gain, camera length and beam centre do not change what is said of a frame."""
    geometry = small_geometry()
    geometry.adu_per_ev[:] = 4.0 / ENERGY
    columns = make_columns(
        4,
        geometry,
        photon_energy=ENERGY * np.array([1, 1.2, 1, 1.1]),
        camera_length=LENGTH * np.array([1, 1, 1.1, 1.1]),
        run=np.array([1, 1, 2, 3]),
    )
    adu, layout = make_frames(expected_photons(), count=4), {"q_min": 0.3, "q_max": 3.0}
    ds = make_dataset(adu, columns=columns, **layout)
    assert ds.sizes["setting"] == 4
    made = step(ds)
    dim = "frame" if "frame" in made.dims else "hit"
    for frame in range(4):
        alone = make_dataset(adu[[frame]], columns=columns.isel(frame=[frame]), **layout)
        for name, variable in step(alone).variables.items():
            if variable.dims[0] == dim:
                xr.testing.assert_identical(variable, made[name].variable.isel({dim: [frame]}))


@pytest.fixture(scope="session")
def small():
    """What makes small detectors and frames."""
    return SimpleNamespace(
        geometry=small_geometry, columns=make_columns, expected=expected_photons, frames=make_frames,
        dataset=make_dataset, check_step=check_step, check_frames_alone=check_frames_alone,
        length=LENGTH, energy=ENERGY, shape=SHAPE, pixel=PIXEL,
    )  # fmt: skip
