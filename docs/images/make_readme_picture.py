"""Draw the README's picture from a demo: python docs/images/make_readme_picture.py demo docs/images/residuals.png."""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

from diffdask import pictures
from diffdask.geometry import Geometry
from diffdask.io.frames_store import open_frames
from diffdask.residual_pictures import residual_panels

TITLES = {
    "diffuse": "diffuse hit",
    "non-diffuse": "non-diffuse hit",
    "blank": "blank",
}


def choose(labels: pd.DataFrame) -> list[int]:
    """Choose a frame of each label: the strongest diffuse one, and of each the least shadow, no jet streak, no ice."""
    clear = labels[(labels["has_streak"] == 0) & (labels["has_ice"] == 0)]
    order = clear.sort_values(["strength", "shadow_depth"], ascending=[False, True], kind="stable")
    return [int(order.loc[order["label"] == label, "frame"].iloc[0]) for label in TITLES]


def main(demo: Path, to: Path) -> None:
    """Draw the residuals of three frames of a demo, on one colour scale."""
    chosen = choose(pd.read_csv(demo / "simulated" / "labels.csv"))
    scores = pd.read_parquet(demo / "catalogue.parquet")["frame_score"]
    pictured = pictures.picture_map(Geometry.from_dataset(open_frames(demo / "frames.zarr")), 400)
    images = [
        pictures.smooth(pictures.assemble(pictures.leave_out_peaks(panels, pictured), pictured), sigma=2.5)
        for _, panels in residual_panels(demo / "results.zarr", chosen)
    ]
    limit = pictures.robust_limit(images[0], sigmas=4.0)
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.5), dpi=110, layout="constrained")
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="#e7e5e4")
    for axis, image, frame, title in zip(axes, images, chosen, TITLES.values(), strict=True):
        drawn = axis.imshow(image, cmap=colours, vmin=-limit, vmax=limit, interpolation="nearest")
        score = scores[frame]
        axis.set_title(f"{title}\n" + (f"score {score:.2f}" if np.isfinite(score) else "no hit: no score"), fontsize=11)
        axis.set_axis_off()
    figure.colorbar(drawn, ax=axes, label="residual / photon", shrink=0.8)
    figure.canvas.draw()
    # A palette makes the file less than half of what true colours take.
    Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB").quantize(128).save(to, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
