"""One frame: the scene and the crystal rendered, then counted and digitised."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diffdask.geometry import wavelength
from diffdask.kernels.counting import read_out, tabulate_poisson
from diffdask.kernels.rendering import meet_panels, stamp_spots, transmission
from diffdask.simulate.campaign import Campaign, FramePlan
from diffdask.simulate.crystal import Crystal, excite_reflections
from diffdask.simulate.detector import PixelMaps, layout_of, map_pixels
from diffdask.simulate.draw import DrawnFrame, draw_frame
from diffdask.simulate.experiment import STRENGTH_WINDOW
from diffdask.simulate.indexing import Indexing
from diffdask.simulate.render import add_streak_and_ice, render_isotropic_and_diffuse
from diffdask.simulate.scene import FrameScene, RunScene

#: Spots that count as peaks stand out of the noise beneath them by this factor.
PEAK_SNR = 7.0

#: Every so many pixels are enough to say how strong the diffuse scattering came out.
_STRIDE = 37


@dataclass(frozen=True)
class Spots:
    """Bragg spots on the detector; s spots."""

    indices: np.ndarray  #: (s, 3) Miller indices
    panel: np.ndarray  #: (s,)
    ss: np.ndarray  #: (s,) from the panel's corner
    fs: np.ndarray  #: (s,) from the panel's corner
    s: np.ndarray  #: (s,) 1/angstrom
    photons: np.ndarray  #: (s,) expected
    noise: np.ndarray  #: (s,) photons, of a measurement: counting, background beneath, readout
    is_peak: np.ndarray  #: (s,) stands out, and on a good pixel


@dataclass(frozen=True)
class Truth:
    """Expected photons of every pixel, (panel, ss, fs) float32 each, before gain and bad pixels."""

    background: np.ndarray  #: solvent, air, streak, ice
    diffuse: np.ndarray  #: diffuse scattering, or what stands in for it
    bragg: np.ndarray


@dataclass(frozen=True)
class SimulatedFrame:
    """A readout and how it came about."""

    plan: FramePlan
    adu: np.ndarray  #: (panel, ss, fs) int16, or int32 where a saturated pixel would not fit
    scene: FrameScene
    run_scene: RunScene
    crystal: Crystal | None  #: None in a blank
    indexing: Indexing | None  #: None where the stream holds no crystal
    spots: Spots
    adu_per_photon: np.ndarray  #: (panel,) at this frame's photon energy, without the detector's flaws
    diffuse_rms: float  #: rms of the diffuse anisotropy over the background, as it came out
    truth: Truth | None  #: if asked for


def simulate_frame(campaign: Campaign, plan: FramePlan, *, keep_truth: bool = False) -> SimulatedFrame:
    """Simulate one frame; a pure function of its arguments.

    Parameters
    ----------
    campaign
        From :func:`~diffdask.simulate.plan_campaign`.
    plan
        One of :func:`~diffdask.simulate.plan_run`.
    keep_truth
        Also return the expected photons of background, diffuse scattering and Bragg spots.
    """
    drawn = draw_frame(campaign, plan)
    run_scene, scene, crystal = drawn.run_scene, drawn.scene, drawn.crystal
    maps = map_pixels(campaign.experiment, campaign.geometry_text, run_scene.shift)
    background, diffuse, diffuse_rms = _render(campaign, plan, scene, maps, crystal)
    shape = layout_of(campaign.geometry_text).geometry.shape
    background, diffuse = background.reshape(-1, *shape), diffuse.reshape(-1, *shape)
    expected = background + diffuse
    spots = _find_spots(campaign, scene, maps, crystal, expected)
    bragg = np.zeros_like(expected) if keep_truth else None
    radius = _radii_of(campaign, crystal, spots)
    for target in (expected, bragg):
        if target is not None:
            stamp_spots(spots.panel, spots.ss, spots.fs, spots.photons, radius, target)
    return SimulatedFrame(
        plan=plan,
        adu=_read_out(campaign, drawn, maps, expected),
        scene=scene,
        run_scene=run_scene,
        crystal=crystal,
        indexing=drawn.indexing,
        spots=spots,
        adu_per_photon=maps.adu_per_photon * _amplification(campaign, scene),
        diffuse_rms=diffuse_rms,
        truth=None if bragg is None else Truth(background, diffuse, bragg),
    )


def spot_radii(campaign: Campaign, crystal: Crystal, s: np.ndarray) -> np.ndarray:
    """Standard deviations of spots in pixels: the point spread, the domains' size and the mosaicity, at most 4."""
    experiment = campaign.experiment
    geometry = layout_of(campaign.geometry_text).geometry
    pixels_per_s = wavelength(experiment.photon_energy) * experiment.camera_length / np.linalg.norm(geometry.fs_step[0])
    spread = np.hypot(0.4 / crystal.domain_size, 0.5 * crystal.mosaicity * s)
    return np.minimum(np.hypot(experiment.spot_radius, pixels_per_s * spread), 4.0)


def _render(
    campaign: Campaign, plan: FramePlan, scene: FrameScene, maps: PixelMaps, crystal: Crystal | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Background and diffuse photons, (n,) each, and how strong the diffuse anisotropy came out."""
    pixels = maps.scattering, maps.collected
    background, diffuse = render_isotropic_and_diffuse(campaign.experiment, plan, scene, crystal, *pixels, maps.s_max)
    is_diffuse, length = plan.kind == "diffuse", wavelength(scene.photon_energy)
    diffuse_rms = _measure_anisotropy(maps, length, background, diffuse) if is_diffuse else 0.0
    add_streak_and_ice(scene, *pixels, background)
    return background, diffuse, diffuse_rms


def _measure_anisotropy(maps: PixelMaps, length: float, background: np.ndarray, diffuse: np.ndarray) -> float:
    """Measure the rms, between 8 and 2.5 angstrom, of diffuse over background less its mean over each ring."""
    some = slice(None, None, _STRIDE)
    s = np.linalg.norm(maps.scattering[some], axis=1) / length
    is_used = (s > 1 / STRENGTH_WINDOW[0]) & (s < 1 / STRENGTH_WINDOW[1]) & (background[some] > 0)
    ring = (s[is_used] * 250).astype(int)
    ratio = (diffuse[some][is_used] / background[some][is_used]).astype(float)
    count = np.bincount(ring)
    mean = np.bincount(ring, ratio) / np.maximum(count, 1)
    return float(np.sqrt(np.mean((ratio - mean[ring]) ** 2))) if ratio.size else 0.0


def _find_spots(
    campaign: Campaign, scene: FrameScene, maps: PixelMaps, crystal: Crystal | None, expected: np.ndarray
) -> Spots:
    """Find the Bragg spots that meet the detector; ``expected`` (panel, ss, fs) is what lies beneath them."""
    if crystal is None:
        nothing, none = np.empty(0), np.empty(0, dtype=np.int64)
        return Spots(np.empty((0, 3), np.int32), none, nothing, nothing, nothing, nothing, nothing, none.astype(bool))
    experiment = campaign.experiment
    file = layout_of(campaign.geometry_text)
    excited = excite_reflections(experiment, crystal, scene.photon_energy, maps.s_max)
    panel = np.empty(len(excited.s), np.int64)
    ss, fs = np.empty((2, len(excited.s)))
    geometry = file.geometry
    meet_panels(maps.corner, geometry.ss_step, geometry.fs_step, file.panel_shapes, excited.ray, panel, ss, fs)
    # What would leave less than a hundredth of a photon is not there.
    is_met = (panel >= 0) & (excited.photons * scene.pulse > 0.01)
    panel, ss, fs = panel[is_met], ss[is_met], fs[is_met]
    place = panel, ss.astype(int), fs.astype(int)
    passed = [transmission(ray[0], ray[1], scene.shadow) for ray in excited.ray[is_met]]
    photons = excited.photons[is_met] * scene.pulse * maps.collected.reshape(expected.shape)[place] * np.array(passed)
    area = 4.0 * np.pi * spot_radii(campaign, crystal, excited.s[is_met]) ** 2
    noise = np.sqrt(photons + area * (expected[place] + experiment.readout_noise**2))
    return Spots(
        indices=excited.indices[is_met],
        panel=panel,
        ss=ss,
        fs=fs,
        s=excited.s[is_met],
        photons=photons,
        noise=noise,
        is_peak=(photons > PEAK_SNR * noise) & ~maps.is_bad[place] & file.pixel_is_good[place],
    )


def _radii_of(campaign: Campaign, crystal: Crystal | None, spots: Spots) -> np.ndarray:
    return np.empty(0) if crystal is None else spot_radii(campaign, crystal, spots.s)


def _read_out(campaign: Campaign, drawn: DrawnFrame, maps: PixelMaps, expected: np.ndarray) -> np.ndarray:
    """Count and digitise ``expected`` (panel, ss, fs)."""
    experiment = campaign.experiment
    adu_per_photon = float(np.median(maps.adu_per_photon))
    saturation = experiment.saturation * adu_per_photon
    adu = np.empty(expected.shape, np.int16 if saturation < 32767 else np.int32)
    read_out(
        expected.reshape(len(expected), -1),
        maps.gain,
        _amplification(campaign, drawn.scene),
        adu_per_photon * drawn.draw_common_mode(len(expected)),
        experiment.readout_noise * adu_per_photon,
        _normal_quantiles(),
        *_poisson_tables(),
        drawn.seeds.generate_state(1, np.uint64)[0],
        saturation,
        adu.reshape(len(expected), -1),
    )
    adu.ravel()[maps.hot] = saturation * drawn.random.uniform(0.2, 1.0, size=maps.hot.size)
    return adu


def _amplification(campaign: Campaign, scene: FrameScene) -> float:
    """Gain of this frame over that at the experiment's energy: an integrating detector measures energy."""
    file = layout_of(campaign.geometry_text)
    is_per_energy = np.isfinite(file.geometry.adu_per_ev).any()
    return scene.photon_energy / campaign.experiment.photon_energy if is_per_energy else 1.0


@lru_cache(maxsize=1)
def _poisson_tables() -> tuple[np.ndarray, np.ndarray]:
    return tabulate_poisson()


@lru_cache(maxsize=1)
def _normal_quantiles() -> np.ndarray:
    from scipy.special import ndtri

    return ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)
