"""Pictures of frames: panels put where the geometry says.

Right is +x, up is +y: the detector as seen looking towards the source. A
picture pixel is the mean of the detector pixels whose centres fall into it.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np

from diffdask.errors import BadParameter
from diffdask.geometry import Geometry, pixel_positions

#: A picture pixel is at least this many detector pixels wide. A square of side sqrt(2) holds the centre
#: of a pixel however a panel is turned (the farthest point of a square lattice is 1/sqrt(2) away), so
#: that no panel shows gaps.
_WIDEST = 1.5

#: Rings in which the spread of the residual is taken for one.
_RING_COUNT = 64

#: Colours of a picture; odd, so that one of them is zero's.
_COLOURS = 63

#: Standard deviation of a normal distribution over its median absolute deviation.
_SIGMA_OF_MAD = 1.4826


@dataclass(frozen=True)
class PictureMap:
    """Where each detector pixel goes in a square picture."""

    index: np.ndarray  #: (panel, ss, fs) int, row * size + column
    ring: np.ndarray  #: (panel, ss, fs) int, coarse ring about the beam
    size: int  #: rows and columns
    pixel_size: float  #: m
    beam: tuple[float, float]  #: (row, column) of the beam; the centre of the first pixel is (0.5, 0.5)


def picture_map(geometry: Geometry, size: int = 320) -> PictureMap:
    """Work out where detector pixels go in a picture.

    Parameters
    ----------
    geometry
        The detector.
    size
        Rows and columns; fewer if the detector has not enough pixels to fill them.
    """
    if size < 1:
        raise BadParameter(f"size = {size} must be at least 1 picture pixel")
    x, y = np.moveaxis(pixel_positions(geometry, camera_length=0.0)[..., :2], -1, 0)
    step = float(max(np.linalg.norm(geometry.ss_step, axis=1).max(), np.linalg.norm(geometry.fs_step, axis=1).max()))
    extent = max(np.ptp(x), np.ptp(y)) + step
    size = max(1, min(size, int(extent / (_WIDEST * step))))
    pixel_size = extent / size
    left, top = (x.min() + x.max() - extent) / 2, (y.min() + y.max() + extent) / 2
    column = np.clip((x - left) / pixel_size, 0, size - 1).astype(np.int32)
    row = np.clip((top - y) / pixel_size, 0, size - 1).astype(np.int32)
    distance = np.hypot(x, y)
    ring = np.minimum(distance / distance.max() * _RING_COUNT, _RING_COUNT - 1).astype(np.int32)
    beam = (float(top / pixel_size), float(-left / pixel_size))
    return PictureMap(index=row * size + column, ring=ring, size=size, pixel_size=pixel_size, beam=beam)


def assemble(panels: np.ndarray, pictured: PictureMap) -> np.ndarray:
    """Put panels together.

    Parameters
    ----------
    panels
        (panel, ss, fs); pixels that are not finite are left out.
    pictured
        From :func:`picture_map` of the same geometry.

    Returns
    -------
    numpy.ndarray
        (row, column) float64, the mean of the pixels there; NaN where there is none.
    """
    index, values = _finite(panels, pictured.index)
    count = np.bincount(index, minlength=pictured.size**2)
    total = np.bincount(index, weights=values, minlength=pictured.size**2)
    mean = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return mean.reshape(pictured.size, pictured.size)


def leave_out_peaks(panels: np.ndarray, pictured: PictureMap, *, snr: float = 4.0, passes: int = 4) -> np.ndarray:
    """Leave out the pixels of a residual that stand out of their ring: Bragg peaks and hot pixels.

    Parameters
    ----------
    panels
        (panel, ss, fs) residual.
    pictured
        From :func:`picture_map`.
    snr
        Standard deviations of the ring, peaks left out, above which a pixel is one.
    passes
        Times to repeat: every pass lowers the spread that the next one sees.

    Returns
    -------
    numpy.ndarray
        The same with NaN there.
    """
    ring, values = _finite(panels, pictured.ring)
    threshold = np.full(_RING_COUNT, np.inf)
    for _ in range(passes):
        count = np.maximum(np.bincount(ring, minlength=_RING_COUNT), 1)
        mean = np.bincount(ring, weights=values, minlength=_RING_COUNT) / count
        # The difference of squares is safe: a residual's mean is small beside its spread, and sums are float64.
        square = np.bincount(ring, weights=values * values, minlength=_RING_COUNT) / count
        threshold = mean + snr * np.sqrt(np.maximum(square - mean**2, 0.0))
        is_kept = values <= threshold[ring]
        ring, values = ring[is_kept], values[is_kept]
    with np.errstate(invalid="ignore"):
        return np.where(panels > threshold[pictured.ring], np.nan, panels)


def smooth(image: np.ndarray, *, sigma: float = 1.5) -> np.ndarray:
    """Smooth a picture with a Gaussian of ``sigma`` pixels; gaps lend nothing and stay gaps."""
    from scipy.ndimage import gaussian_filter

    is_there = np.isfinite(image)
    weight = gaussian_filter(is_there.astype(float), sigma)
    total = gaussian_filter(np.where(is_there, image, 0.0), sigma)
    return np.divide(total, weight, out=np.full(image.shape, np.nan), where=is_there)


def robust_limit(image: np.ndarray, *, sigmas: float = 3.0) -> float:
    """Limit of a colour scale about zero: so many robust standard deviations; 1 where nothing varies."""
    values = image[np.isfinite(image)]
    spread = _SIGMA_OF_MAD * float(np.median(np.abs(values))) if values.size else 0.0
    return sigmas * spread or 1.0


def to_png(image: np.ndarray, *, limit: float, colormap: str = "RdBu_r", gap: str = "#e7e5e4") -> str:
    """Draw a picture as PNG.

    Parameters
    ----------
    image
        (row, column); NaN is drawn in the colour ``gap``.
    limit
        Values of -limit and limit get the ends of the colour map.
    colormap
        A diverging one of Matplotlib's.
    gap
        Colour of pixels without a value.

    Returns
    -------
    str
        A ``data:`` URI.
    """
    import matplotlib.colors
    from PIL import Image

    # A palette of few colours makes the file a third of what true colours take.
    shares = np.clip((image / limit + 1.0) / 2.0, 0.0, 1.0)
    place = np.where(np.isfinite(image), shares * (_COLOURS - 1) + 0.5, _COLOURS)
    colours = matplotlib.colormaps[colormap](np.linspace(0.0, 1.0, _COLOURS), bytes=True)[:, :3]
    palette = np.vstack([colours, 255 * np.array(matplotlib.colors.to_rgb(gap))])
    drawn = Image.fromarray(place.astype(np.uint8))
    drawn.putpalette(palette.round().astype(np.uint8).tobytes())
    file = io.BytesIO()
    drawn.save(file, format="PNG", optimize=True)
    return data_uri(file.getvalue(), "image/png")


def data_uri(content: bytes, kind: str) -> str:
    """Put a file's content into an address, so that a page needs no second file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _finite(panels: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    is_finite = np.isfinite(panels)
    return index[is_finite], panels[is_finite].astype(np.float64)
