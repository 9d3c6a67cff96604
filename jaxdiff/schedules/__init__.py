"""Noise schedules, one file a family: which levels there are, and how a network is read at them."""

from jaxdiff.schedules.base import Level, Scalings, Schedule, Steps
from jaxdiff.schedules.ddpm import DDPMSchedule, ScheduleConfig

__all__ = ["DDPMSchedule", "Level", "Scalings", "Schedule", "ScheduleConfig", "Steps"]
