"""The benchmark behind `scripts/bench`: fusefs beside what else there is, in one run.

Every case measures its systems in interleaved rounds (A B C A B C …), so that a machine that
slows down slows all of them, and reports medians with their spread. The reader is a small C
program (`reader.c`), so that it is not the bottleneck. Single-threaded; nothing is imported by
fusefs itself.
"""
