"""Noise schedules, one file a family: which levels there are, and how a network is read at them."""

from jaxdiff.schedules.base import Level, Scalings, Schedule, Steps
from jaxdiff.schedules.consistency import ConsistencySchedule
from jaxdiff.schedules.ddpm import DDPMSchedule, ScheduleConfig
from jaxdiff.schedules.edm import EDMSchedule
from jaxdiff.schedules.flow import FlowSchedule
from jaxdiff.schedules.ve import VESchedule

__all__ = [
    "ConsistencySchedule",
    "DDPMSchedule",
    "EDMSchedule",
    "FlowSchedule",
    "Level",
    "Scalings",
    "Schedule",
    "ScheduleConfig",
    "Steps",
    "VESchedule",
]
