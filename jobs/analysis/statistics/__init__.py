"""What the pairs of a run have in common: numbers over a whole data set, in ``statistics/`` of the run directory.

One pass over `attributions` feeds every statistic; each keeps sums of fixed size. What follows from the sums stored
with every pair is exact; what needs single cells is exact where whole matrices were kept (``store: full``), else
estimated from the cells in `top`, between two bounds that hold for certain.
"""
