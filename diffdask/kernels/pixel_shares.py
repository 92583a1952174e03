"""How much of each pixel lies in each cell of a picture, cut out exactly.

A picture is a square of ``size`` by ``size`` cells about the beam. Its row 0 is
at the top (+y) and its columns grow towards +x: the detector as seen looking
towards the source. In cells, a point (x, y) m lies at column size/2 + x/step and
row size/2 - y/step.
"""

import numpy as np

from diffdask.kernels.compilation import compiled, kernel

#: Shares of a pixel below this are rounding.
_LEAST_SHARE = 1e-9


@kernel
def share_pixels(corner, ss_step, fs_step, ring, size, start, cell, share):
    """Share the pixels of all panels among the cells of a picture, by the area that they cover.

    A pixel is a parallelogram; what it has in common with a cell is cut out
    exactly. The shares of a pixel sum to 1 where it lies inside the picture.

    Parameters
    ----------
    corner, ss_step, fs_step : (panels, 2) float64
        Corner of the first pixel (column, row), and one pixel along each axis; cells.
    ring : (panels, ss, fs) integer
        Negative where a pixel is not used: it has no share.
    size : int
        Rows and columns.
    start : (p + 1,) int64
        Filled: where the shares of each pixel begin.
    cell : (m,) int32
        Filled with cells, row * size + column; empty to count only.
    share : (m,) float32
        Filled with the share of the pixel's area that lies in the cell.

    References
    ----------
    Sutherland & Hodgman, Commun. ACM 17, 32 (1974).
    """
    panels, height, width = ring.shape
    pixel, work = np.empty((4, 2)), np.empty((2, 8, 2))
    place, found = 0, 0
    for panel in range(panels):
        area = abs(ss_step[panel, 0] * fs_step[panel, 1] - ss_step[panel, 1] * fs_step[panel, 0])
        for ss in range(height):
            for fs in range(width):
                start[place] = found
                place += 1
                if ring[panel, ss, fs] < 0:
                    continue
                for k in range(2):
                    first = corner[panel, k] + ss * ss_step[panel, k] + fs * fs_step[panel, k]
                    pixel[0, k] = first
                    pixel[1, k] = first + fs_step[panel, k]
                    pixel[2, k] = first + fs_step[panel, k] + ss_step[panel, k]
                    pixel[3, k] = first + ss_step[panel, k]
                found = _share_pixel(pixel, area, size, work, found, cell, share)
    start[place] = found


@compiled
def _share_pixel(pixel, area, size, work, found, cell, share):
    """Append the shares of one pixel, corners (4, 2); gives how many there are now."""
    low_column, high_column = np.floor(pixel[:, 0].min()), np.floor(pixel[:, 0].max())
    low_row, high_row = np.floor(pixel[:, 1].min()), np.floor(pixel[:, 1].max())
    is_whole = low_column == high_column and low_row == high_row
    for row in range(max(int(low_row), 0), min(int(high_row), size - 1) + 1):
        for column in range(max(int(low_column), 0), min(int(high_column), size - 1) + 1):
            part = 1.0 if is_whole else _common_area(pixel, column, row, work) / area
            if part > _LEAST_SHARE:
                if cell.size:
                    cell[found] = row * size + column
                    share[found] = part
                found += 1
    return found


@compiled
def _common_area(pixel, column, row, work):
    """Area that a pixel and the unit square at (column, row) have in common."""
    work[0, :4] = pixel
    corners = _cut(work[0], 4, 0, 1.0, float(column), work[1])
    corners = _cut(work[1], corners, 0, -1.0, column + 1.0, work[0])
    corners = _cut(work[0], corners, 1, 1.0, float(row), work[1])
    corners = _cut(work[1], corners, 1, -1.0, row + 1.0, work[0])
    total = 0.0
    for here in range(corners):
        after = (here + 1) % corners
        # about the cell's corner: far from it, products would lose what differs between them
        x, y, next_x, next_y = (
            work[0, here, 0] - column, work[0, here, 1] - row, work[0, after, 0] - column, work[0, after, 1] - row,
        )  # fmt: skip
        total += x * next_y - next_x * y
    return abs(total) / 2.0


@compiled
def _cut(polygon, corners, axis, sign, bound, kept):
    """Keep what lies at ``sign`` * (coordinate - bound) >= 0 of a convex polygon; gives the corners kept."""
    count = 0
    for here in range(corners):
        after = (here + 1) % corners
        off, off_after = sign * (polygon[here, axis] - bound), sign * (polygon[after, axis] - bound)
        if off >= 0.0:
            kept[count] = polygon[here]
            count += 1
        if (off >= 0.0) != (off_after >= 0.0):
            part = off / (off - off_after)
            for k in range(2):
                kept[count, k] = polygon[here, k] + part * (polygon[after, k] - polygon[here, k])
            count += 1
    return count
