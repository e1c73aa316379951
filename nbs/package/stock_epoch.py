"""An epoch of `CollabDataLoaders` leaves out more than a third of the training rows.

Versions: fastai 2.7.15 and later (2.8.7 is the newest one tried). Since pull request 3995, `TabularPandas`
makes its loaders by `TabWeightedDL`. That class draws rows with replacement, also if no weights are given.

Expected: an epoch holds every training row once. What happens: it holds about 63 % of the rows (1 - 1/e),
and some of them several times. Cure for users: pass `dl_type=TabDataLoader`. Cure for fastai: let
`TabWeightedDL.get_idxs` call `super().get_idxs()` if `wgts` is None.

Run this file: it needs fastai only, prints both counts, and exits with 1 if the default loader is at fault.
"""
import sys

import fastai, numpy as np, pandas as pd
from fastai.collab import CollabDataLoaders
from fastai.tabular.core import TabDataLoader

rng = np.random.default_rng(0)
n_ratings = 10_000
ratings = pd.DataFrame({
    'user': rng.integers(0, 300, n_ratings),
    'item': rng.integers(0, 200, n_ratings),
    'rating': rng.integers(1, 6, n_ratings)})


def distinct_rows(name, **kwargs):
    "Print and return the share of training rows that one epoch of the loader holds"
    dls = CollabDataLoaders.from_df(ratings, bs=64, seed=0, **kwargs)
    n_rows, n_distinct = len(dls.train_ds), len(set(dls.train.get_idxs()))
    print(f'{name}: {n_distinct:,} of {n_rows:,} training rows in an epoch')
    return n_distinct/n_rows


if __name__ == '__main__':
    print('fastai', fastai.__version__)
    stock = distinct_rows('default loader')
    distinct_rows('dl_type=TabDataLoader', dl_type=TabDataLoader)
    sys.exit(stock < 1)
