"""Made-up but physical frames of a crystal experiment at an X-ray laser, in the formats of real ones.

An :class:`Experiment` is what one beam time would fix (crystal, beam, detector, surroundings); a :class:`Campaign`
says how many frames of what kind are taken. Every frame is a pure function of the campaign and the frame's plan:
workers may write runs in any order.

>>> experiment = make_experiment(1)
>>> campaign = plan_campaign(experiment, frames=300, runs=3)
>>> plan = plan_run(campaign, 1)[0]
>>> plan.run, plan.frame
(1, 0)
"""

from diffdask.simulate.campaign import Campaign, FramePlan, plan_campaign, plan_run
from diffdask.simulate.cspad import cspad_geometry_text
from diffdask.simulate.experiment import Experiment, make_experiment
from diffdask.simulate.frame import SimulatedFrame, simulate_frame
from diffdask.simulate.polar import simulate_polar_hits
from diffdask.simulate.writing import is_written, write_run, write_tables

__all__ = [
    "Campaign",
    "Experiment",
    "FramePlan",
    "SimulatedFrame",
    "cspad_geometry_text",
    "is_written",
    "make_experiment",
    "plan_campaign",
    "plan_run",
    "simulate_frame",
    "simulate_polar_hits",
    "write_run",
    "write_tables",
]
