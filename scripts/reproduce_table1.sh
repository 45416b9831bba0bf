#!/usr/bin/env bash
# Table 1. All flags go to scripts/reproduce_table1.py; see --help. PYTHON names the interpreter.
# Example: bash scripts/reproduce_table1.sh --preset=mini
exec "${PYTHON:-python3}" "$(dirname "${BASH_SOURCE[0]}")/reproduce_table1.py" "$@"
