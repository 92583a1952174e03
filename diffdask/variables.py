"""Every variable that diffdask stores or passes on, declared once.

A step checks its input with :func:`require` and stamps its output with
:func:`wrap`; names, dims, units and meanings live here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import xarray as xr

from diffdask.errors import MissingVariable


@dataclass(frozen=True)
class Variable:
    """One variable: what it is called, along what it runs, and what it means."""

    name: str
    dims: tuple[str, ...]
    kind: str  #: "integer", "float", "boolean", "text" or "number" (as recorded)
    units: str  #: "1" where there is none
    meaning: str
    made_by: str  #: the verb or step a user calls to get it


_FRAME = ("frame",)
_IMAGE = ("panel", "ss", "fs")
_MAP = ("setting", *_IMAGE)
_POLAR = ("hit", "polar_ring", "azimuth")
_PEAK = ("hit", "peak")
_CUBE = ("map_x", "map_y", "map_z")

_DECLARED = (
    # frames store -------------------------------------------------------------
    Variable("adu", ("frame", *_IMAGE), "number", "ADU", "readout as recorded", "ingest"),
    Variable("pixel_is_good", _IMAGE, "boolean", "1", "pixel may be used", "ingest"),
    Variable("pixel_is_wide", _IMAGE, "boolean", "1", "pixel of a wide column of a CSPAD panel", "ingest"),
    Variable("panel_name", ("panel",), "text", "1", "name in the geometry file", "ingest"),
    Variable(
        "panel_corner", ("panel", "xyz"), "float", "m", "corner of the first pixel; z from the camera length", "ingest"
    ),
    Variable("panel_ss_step", ("panel", "xyz"), "float", "m", "one pixel along slow-scan", "ingest"),
    Variable("panel_fs_step", ("panel", "xyz"), "float", "m", "one pixel along fast-scan", "ingest"),
    Variable("panel_adu_per_ev", ("panel",), "float", "ADU/eV", "gain; NaN where given per photon", "ingest"),
    Variable("panel_adu_per_photon", ("panel",), "float", "ADU", "gain; NaN where given per eV", "ingest"),
    Variable("frame_id", _FRAME, "text", "1", "unique over runs and never reused", "ingest"),
    Variable("run", _FRAME, "integer", "1", "run number", "ingest"),
    Variable("event", _FRAME, "text", "1", "event in its source file, as CrystFEL writes it", "ingest"),
    Variable("source", _FRAME, "text", "1", "file the frame came from", "ingest"),
    Variable("photon_energy", _FRAME, "float", "eV", "photon energy", "ingest"),
    Variable("camera_length", _FRAME, "float", "m", "sample to detector: clen + coffset", "ingest"),
    Variable(
        "detector_shift",
        ("frame", "xy"),
        "float",
        "m",
        "shift of the detector found by indexing; NaN where not indexed",
        "ingest",
    ),
    Variable(
        "orientation",
        ("frame", "reciprocal_axis", "xyz"),
        "float",
        "1/angstrom",
        "a*, b*, c* in the laboratory; NaN where not indexed",
        "ingest",
    ),
    Variable("lattice", _FRAME, "text", "1", "lattice type, centring and unique axis from indexing", "ingest"),
    Variable("frame_status", _FRAME, "text", "1", "'ok', or why the frame could not be used", "ingest"),
    # layout of a campaign's pixels ----------------------------------------------
    Variable("frame_setting", _FRAME, "integer", "1", "which pixel layout serves the frame", "lay_out_rings"),
    Variable("pixel_ring", _MAP, "integer", "1", "ring of the pixel; -1 where it must not be used", "lay_out_rings"),
    Variable(
        "pixel_correction", _MAP, "float", "1", "factor that takes out polarisation and solid angle", "lay_out_rings"
    ),
    Variable("ring_q", ("ring",), "float", "1/angstrom", "centre of the ring", "lay_out_rings"),
    Variable("pixel_azimuth", _MAP, "integer", "1", "azimuthal bin of the pixel", "lay_out_rings"),
    Variable("polar_ring_q", ("polar_ring",), "float", "1/angstrom", "centre of the polar ring", "find_polar_residual"),
    Variable(
        "azimuth", ("azimuth",), "float", "rad", "centre of the azimuthal bin, from +x towards +y", "lay_out_rings"
    ),
    # screen ------------------------------------------------------------------------
    Variable(
        "photons",
        ("frame", *_IMAGE),
        "float",
        "photon",
        "corrected intensity; NaN where the pixel is not used",
        "count_photons",
    ),
    Variable(
        "residual", ("frame", *_IMAGE), "float", "photon", "intensity less its isotropic part", "remove_background"
    ),
    Variable(
        "background_profile",
        ("frame", "ring"),
        "float",
        "photon",
        "isotropic part: mean of the ring; NaN where too few pixels",
        "screen",
    ),
    Variable(
        "ring_anisotropy",
        ("frame", "ring"),
        "float",
        "1",
        "azimuthal variance less counting variance, over the squared mean",
        "screen",
    ),
    Variable(
        "anisotropy_features",
        ("frame", "ring_band"),
        "float",
        "1",
        "root of the anisotropy of neighbouring rings, its sign kept: amplitude of what depends on azimuth",
        "find_anisotropy_features",
    ),
    Variable("frame_background", _FRAME, "float", "photon", "median ring mean", "screen"),
    Variable("frame_anisotropy", _FRAME, "float", "1", "median of the anisotropy over rings", "screen"),
    Variable(
        "frame_diffuse_excess",
        _FRAME,
        "float",
        "1",
        "excess of coarse cells over counting noise, robust spread",
        "screen",
    ),
    Variable("frame_peak_count", _FRAME, "integer", "1", "Bragg peaks found", "screen"),
    Variable("frame_peak_intensity", _FRAME, "float", "photon", "mean intensity of the peaks", "screen"),
    Variable("frame_is_hit", _FRAME, "boolean", "1", "enough peaks, or enough diffuse excess", "screen"),
    # hits ----------------------------------------------------------------------------
    Variable("hit_frame", ("hit",), "integer", "1", "number of the frame in ingest order", "screen"),
    Variable("hit_peak_count", ("hit",), "integer", "1", "Bragg peaks found", "screen"),
    Variable("peak_panel", _PEAK, "integer", "1", "panel of the peak; -1 past the last", "screen"),
    Variable("peak_ss", _PEAK, "float", "pixel", "centre of mass along slow-scan, from the panel's corner", "screen"),
    Variable("peak_fs", _PEAK, "float", "pixel", "centre of mass along fast-scan, from the panel's corner", "screen"),
    Variable("peak_intensity", _PEAK, "float", "photon", "intensity above the local background", "screen"),
    Variable("peak_snr", _PEAK, "float", "1", "signal-to-noise ratio of the intensity", "screen"),
    Variable(
        "polar_residual", _POLAR, "float", "photon", "mean residual of the bin; NaN where too few pixels", "screen"
    ),
    Variable("polar_noise", _POLAR, "float", "photon", "counting noise of the bin's mean", "screen"),
    Variable("polar_coverage", ("polar_ring",), "float", "1", "share of azimuths with enough usable pixels", "screen"),
    Variable(
        "nuisance_component",
        ("component", "polar_ring", "azimuth"),
        "float",
        "1",
        "what hits share in the detector's frame",
        "screen",
    ),
    Variable(
        "cleaned_residual",
        _POLAR,
        "float",
        "1",
        "polar residual over its noise, what the run shares taken out",
        "screen",
    ),
    Variable(
        "azimuthal_features",
        ("hit", "feature"),
        "float",
        "1",
        "azimuthal power and correlations that no rotation about the beam changes",
        "screen",
    ),
    Variable(
        "hit_structure",
        ("hit",),
        "float",
        "1",
        "agreement of neighbouring polar bins of the cleaned residual, in standard deviations of counting noise",
        "screen",
    ),
    # pictures for VGG16 ----------------------------------------------------------------
    Variable(
        "polar_nuisance",
        _POLAR,
        "float",
        "photon",
        "what the hit has of what its run shares; NaN where not known",
        "find_polar_nuisance",
    ),
    Variable(
        "hit_image",
        ("hit", "image_row", "image_column", "image_channel"),
        "integer",
        "1",
        "picture of the hit in bytes, up is +y and right is +x: 128 for zero and for gaps, 1 and 255 for the limits",
        "render_images",
    ),
    Variable(
        "vgg16_features",
        ("hit", "vgg16_feature"),
        "float",
        "1",
        "outputs of VGG16's wide layers for the picture of the hit, layer by layer",
        "extract",
    ),
    # haloes ----------------------------------------------------------------------------
    Variable(
        "hit_halo",
        ("hit",),
        "float",
        "1",
        "crest of the haloes about lattice points, in standard deviations of counting noise; NaN without a lattice",
        "find_haloes",
    ),
    Variable("halo_crest", ("hit",), "float", "photon", "mean crest of the haloes, fitted", "find_haloes"),
    Variable(
        "halo_profile",
        ("hit", "halo_shell"),
        "float",
        "photon",
        "intensity above that further away, outside Bragg spots, by distance from the nearest lattice point",
        "find_haloes",
    ),
    Variable("halo_noise", ("hit", "halo_shell"), "float", "photon", "counting noise of the profile", "find_haloes"),
    Variable(
        "halo_distance",
        ("halo_shell",),
        "float",
        "1/angstrom",
        "centre of a shell about lattice points, without 2 pi",
        "find_haloes",
    ),
    Variable(
        "refined_orientation",
        ("hit", "reciprocal_axis", "xyz"),
        "float",
        "1/angstrom",
        "a*, b*, c* in the laboratory, turned so that the hit's Bragg peaks fit; NaN where they do not",
        "find_haloes",
    ),
    Variable(
        "lattice_share", ("hit",), "float", "1", "share of the Bragg peaks that lie on the lattice", "find_haloes"
    ),
    Variable(
        "hit_mosaicity",
        ("hit",),
        "float",
        "rad",
        "angle by which points of the lattice are off the Ewald sphere and yet seen as peaks, standard deviation",
        "find_haloes",
    ),
    Variable(
        "frame_halo",
        _FRAME,
        "float",
        "1",
        "crest of the hit's haloes, hit_halo, in robust standard deviations of all hits; NaN without",
        "haloes",
    ),
    Variable(
        "frame_lattice_share",
        _FRAME,
        "float",
        "1",
        "share of the hit's bright peaks that lie on its lattice; below 0.3 the hit is misindexed",
        "haloes",
    ),
    # similarity ----------------------------------------------------------------------
    Variable(
        "similarity_ring_q", ("similarity_ring",), "float", "1/angstrom", "centre of a ring that is compared", "compare"
    ),
    Variable(
        "standardised_residual",
        ("hit", "similarity_ring", "azimuth"),
        "float",
        "1",
        "cleaned residual, each ring of mean 0 and spread 1; NaN where missing",
        "compare",
    ),
    Variable("hit_wavelength", ("hit",), "float", "angstrom", "wavelength", "compare"),
    Variable(
        "crystal_rotation",
        ("hit", "crystal_xyz", "xyz"),
        "float",
        "1",
        "rotation from the laboratory into the crystal's frame; NaN where not indexed",
        "compare",
    ),
    Variable(
        "pair_agreement",
        ("hit", "other_hit"),
        "float",
        "1",
        "logarithm of the similarity of two hits; NaN where they share too little",
        "compare",
    ),
    Variable("pair_samples", ("hit", "other_hit"), "integer", "1", "samples behind the agreement", "compare"),
    Variable(
        "ambiguity_agreement",
        ("ambiguity", "hit", "other_hit"),
        "float",
        "1",
        "agreement under each labelling of the other hit's axes",
        "compare",
    ),
    Variable(
        "ambiguity_samples",
        ("ambiguity", "hit", "other_hit"),
        "integer",
        "1",
        "samples behind the agreement",
        "compare",
    ),
    Variable(
        "crystal_cell",
        ("reciprocal_axis", "crystal_xyz"),
        "float",
        "1/angstrom",
        "a*, b*, c* of the mean cell in the crystal's frame",
        "compare",
    ),
    Variable("borrowed_from", ("hit",), "integer", "1", "hit whose orientation it borrows, to see chance", "compare"),
    Variable("hit_labelling", ("hit",), "integer", "1", "labelling of the axes; -1 where not indexed", "compare"),
    Variable(
        "exchanged_agreement",
        ("hit", "other_hit"),
        "float",
        "1",
        "agreement of the hit, at a borrowed orientation, with the other: what chance gives",
        "compare",
    ),
    Variable("exchanged_samples", ("hit", "other_hit"), "integer", "1", "samples behind it", "compare"),
    Variable(
        "exchanged_ambiguity_agreement",
        ("ambiguity", "hit", "other_hit"),
        "float",
        "1",
        "the same under each labelling of the other hit's axes",
        "compare",
    ),
    Variable(
        "exchanged_ambiguity_samples",
        ("ambiguity", "hit", "other_hit"),
        "integer",
        "1",
        "samples behind it",
        "compare",
    ),
    Variable("distance_scale", (), "float", "1", "squared distance at which the similarity is 1 / e", "compare"),
    # a map grown, and orientations found in it ------------------------------------------
    Variable(
        "hit_pairs", ("hit",), "float", "1", "agreement with the leading group of hits, in units of chance", "rank"
    ),
    Variable(
        "hit_pairs_significance",
        ("hit",),
        "float",
        "1",
        "the same with the group that the other folds form, in units of chance",
        "rank",
    ),
    Variable(
        "hit_pairs_p_value", ("hit",), "float", "1", "share of hits at borrowed orientations that agree as much", "rank"
    ),
    Variable(
        "hit_consistency",
        ("hit",),
        "float",
        "1",
        "agreement with the map of the other hits, in units of chance",
        "rank",
    ),
    Variable(
        "hit_consistency_significance",
        ("hit",),
        "float",
        "1",
        "the same with the map that the other folds grew, in units of chance",
        "rank",
    ),
    Variable(
        "hit_false_discovery",
        ("hit",),
        "float",
        "1",
        "expected share of wrong ones among hits of this consistency and more",
        "rank",
    ),
    Variable("hit_weight", ("hit",), "float", "1", "weight in the map, at most 1", "rank"),
    Variable("hit_fold", ("hit",), "integer", "1", "fold of the hit; -1 where it is not indexed", "rank"),
    Variable("fold_weight", ("fold", "hit"), "float", "1", "weight in the map grown without the fold", "rank"),
    Variable(
        "found_rotation",
        ("hit", "crystal_xyz", "xyz"),
        "float",
        "1",
        "rotation from the laboratory into the crystal's frame where the hit fits the map best",
        "orient",
    ),
    Variable("search_score", ("hit",), "float", "1", "correlation there times the root of the samples", "orient"),
    Variable(
        "twisted_score", ("hit", "twist"), "float", "1", "the same of the hit with its rings twisted: chance", "orient"
    ),
    Variable(
        "frame_search",
        _FRAME,
        "float",
        "1",
        "fit of the hit to the map where it fits best, in units of chance",
        "orient",
    ),
    Variable("frame_search_p_value", _FRAME, "float", "1", "share of twisted hits that fit as well", "orient"),
    Variable(
        "frame_search_false_discovery",
        _FRAME,
        "float",
        "1",
        "expected share of wrong ones among hits that fit as well and better",
        "orient",
    ),
    Variable("frame_search_angle", _FRAME, "float", "deg", "from the orientation found to that of indexing", "orient"),
    Variable(
        "frame_is_misindexed",
        _FRAME,
        "boolean",
        "1",
        "fits the map elsewhere than indexing said, and does not agree with it there",
        "orient",
    ),
    Variable("frame_orientation_source", _FRAME, "text", "1", "'indexing', 'map', 'none' or 'not a hit'", "orient"),
    Variable(
        "found_orientation",
        ("frame", "reciprocal_axis", "xyz"),
        "float",
        "1/angstrom",
        "a*, b*, c* in the laboratory as found in the map",
        "orient",
    ),
    # scores --------------------------------------------------------------------------
    Variable(
        "frame_score",
        _FRAME,
        "float",
        "1",
        "what ranks the hit: a ranker's probability, log odds without labels, or how far above chance it is",
        "rank",
    ),
    Variable(
        "frame_structure",
        _FRAME,
        "float",
        "1",
        "structure of the hit, hit_structure; NaN for frames that are no hits",
        "rank",
    ),
    Variable("frame_score_source", _FRAME, "text", "1", "which score the frame has, and why", "rank"),
    Variable(
        "frame_pairs",
        _FRAME,
        "float",
        "1",
        "agreement with the leading group of hits, in units of chance",
        "rank",
    ),
    Variable(
        "frame_pairs_p_value", _FRAME, "float", "1", "share of hits at borrowed orientations that agree as much", "rank"
    ),
    Variable(
        "frame_consistency",
        _FRAME,
        "float",
        "1",
        "agreement with the map of the other hits, in units of chance",
        "rank",
    ),
    Variable(
        "frame_false_discovery",
        _FRAME,
        "float",
        "1",
        "expected share of wrong ones among hits of this consistency and more",
        "rank",
    ),
    Variable(
        "frame_expected_wrong",
        _FRAME,
        "float",
        "1",
        "expected share of wrong ones among hits that score as high and higher",
        "rank",
    ),
    Variable("frame_rank", _FRAME, "integer", "1", "1 for the highest score; 0 for frames without a score", "rank"),
    # map -------------------------------------------------------------------------------
    Variable(
        "map_intensity",
        _CUBE,
        "float",
        "photon",
        "merged residual in the crystal's frame, on the scale of the median hit; NaN where no hit reaches",
        "merge",
    ),
    Variable("map_weight", _CUBE, "float", "1/photon^2", "inverse variances of the bins merged, their sum", "merge"),
    Variable("map_shell_q", ("map_shell",), "float", "1/angstrom", "centre of a shell of resolution", "merge"),
    Variable(
        "half_map_correlation",
        ("map_shell",),
        "float",
        "1",
        "weighted correlation of the maps of two random halves of the hits; NaN where they share too few voxels",
        "merge",
    ),
    Variable("half_map_voxels", ("map_shell",), "integer", "1", "voxels that both halves fill, mates once", "merge"),
    Variable("merged_frame", ("merged_hit",), "integer", "1", "number of a frame that was merged", "merge"),
    Variable("merged_half", ("merged_hit",), "integer", "1", "half map that it went to: 0 or 1", "merge"),
)

VARIABLES: dict[str, Variable] = {variable.name: variable for variable in _DECLARED}

STATUS_OK = "ok"

LABELS = ("diffuse", "non-diffuse", "blank")

#: Ways in which pairs of hits are compared; each has its group in the results store.
SIMILARITIES = ("common-arc", "correlation", "euclidean")


def wrap(**arrays: Any) -> xr.Dataset:
    """Make a Dataset of declared variables from bare arrays.

    Parameters
    ----------
    **arrays
        Variable name to array (NumPy or Dask), its axes in the declared order.

    Returns
    -------
    xarray.Dataset
        With dims, units and meaning filled in; coordinates such as ``ring_q``
        stay plain variables.
    """
    made = {}
    for name, array in arrays.items():
        declared = VARIABLES[name]
        bare = array.data if isinstance(array, xr.DataArray) else array
        made[name] = xr.Variable(declared.dims, bare, {"units": declared.units, "meaning": declared.meaning})
    return xr.Dataset(made)


def require(dataset: xr.Dataset, *names: str) -> None:
    """Raise :class:`MissingVariable`, naming what makes them, if variables are missing."""
    missing = [VARIABLES[name] for name in names if name not in dataset]
    if missing:
        told = "; ".join(f"'{v.name}' {v.dims}, made by '{v.made_by}'" for v in missing)
        raise MissingVariable(
            f"the dataset lacks {told}. It has: {', '.join(map(str, dataset.variables)) or 'nothing'}"
        )
