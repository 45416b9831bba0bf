"""The paper, sections 2 and 3. Start with `reference`, which reads as the paper does, one leaf at a time.

`region_graph`, `spn`, `likelihoods`, `experts` (of `layers`) and `iwae` are the parts that `mixture` puts together, for
all leaves at once: equations (6), (7) and (9).
"""
