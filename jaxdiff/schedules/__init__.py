"""Noise schedules, one file a family."""

from jaxdiff.schedules.ddpm import Schedule, ScheduleConfig, Steps

__all__ = ["Schedule", "ScheduleConfig", "Steps"]
