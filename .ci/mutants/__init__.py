# SPDX-License-Identifier: Apache-2.0
"""Mutants: does anything notice when the module is broken?

    python .ci/mutants [NAME|GROUP...] [--sample N] [--seed S] [--jobs J] [--full]

Each mutant is the module with one text replaced by another, in a copy of the repository. What is
named beside it in table.py has to fail then: the simulation, directed tests, or both. The first row
is the module as it is, which has to pass. The simulation stops at the first seed that fails; with
--full it goes on and the row says how many do. With --sample there are N mutants of a seed beside
them, anywhere in the module, for the default tests: sample.py, which also lists those that change
nothing. Exit status 1 when another one survives, 2 when one does not apply any more.
"""
