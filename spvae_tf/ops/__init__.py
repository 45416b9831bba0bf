"""Numerics without statistics: functions, random bits, convolutions of small images, and what the device prefers.

Every word about XLA, memory and vector registers is here, so that the model above reads like the paper.
"""
