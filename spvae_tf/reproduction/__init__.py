"""The paper's tables and figures, ours beside them.

table1.py, table2.py, figure2.py and figure3.py make what the paper shows, beyond.py what it does not; their runs go
through cross_validation.py and workers.py. compare.py sets ours beside the published numbers, paired.py model beside
model, image by image. report.py writes the generated blocks of the pages by text.py; plots.py and pictures.py draw.
`folder` is `<results_dir>/<protocol>` everywhere, and a `config` is resolved.
"""
