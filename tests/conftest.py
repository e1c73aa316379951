import os
from pathlib import Path

import matplotlib
matplotlib.use('Agg')
import pytest, torch
from fastai.collab import EmbeddingDotBias, EmbeddingNN

from collab_course.bayes import BayesianMF
from collab_course.cross_entropy import (
    GaussianAround,
    OrdinalDotProduct,
    RatingCrossEntropy,
    SoftmaxDotProduct,
)
from collab_course.dot_product import DotProduct, DotProductBias, DotProductBiasScratch
from collab_course.errors import DataError
from collab_course.movielens import movielens
from collab_course.keras_style import KerasStyleBias, KerasStyleDotProduct, KerasStyleNN
from collab_course.labels import DotProductLabels, LabelSet, LabelsNN
from collab_course.loaders import RatingsDataLoaders
from collab_course.neural_net import CollabNN
from collab_course.ordered_bayes import OrderedBayesianMF
from collab_course.progression import BiasOnly
from collab_course.ranking import EASE, MultDAE, Popularity
from collab_course.svdpp import SVDpp, Ensemble

# an installed package has no contenders beside it; the checkout of these tests has
os.environ.setdefault(
    'COLLAB_COURSE_CONTENDERS', str(Path(__file__).resolve().parent.parent / 'nbs' / 'contenders')
)
R = .5, 5.5
n_labels = [[0, 0]] + [[1 + k % 2, 0] for k in range(20)]
parity = LabelSet('parity', 'item', ['#na#', 'odd', 'even'], torch.tensor(n_labels))
n_people = [[0, 0]] + [[1, 2] if k % 3 == 0 else [k % 3, 0] for k in range(20)]
people = LabelSet('people', 'user', ['#na#', 3, 7], torch.tensor(n_people))
stars = dict(loss_func=RatingCrossEntropy([1, 5]))
knows_nothing = dict(right=0, n_epoch=2)      # who rated what, or a mean, says nothing on a checkerboard
both = [parity, people]


def _sized(cls, *args, **kwargs): return lambda d: cls(d.n_users, d.n_items, *args, **kwargs)
def _with_pairs(cls, *args, **kwargs):
    return lambda d: cls(d.n_users, d.n_items, *args, pairs=d.train_ds.x, **kwargs)


def _net(cls, *args): return lambda d: cls((d.n_users, 10), (d.n_items, 12), R, 40, *args)
# not for training
def _around(make): return lambda d: GaussianAround(make(d), [1, 5], 1.).requires_grad_(False)


# every model of every lesson: name → (function: loaders → an untrained model, how `check_model` is to be
# called)
ALL_MODELS = {
    'dot product': (_sized(DotProduct, 4), {}),
    'dot product, range': (_sized(DotProduct, 4, R), {}),
    'bias': (_sized(DotProductBias, 4, R), {}),
    'bias, no range': (_sized(DotProductBias, 4, None), {}),
    'scratch': (_sized(DotProductBiasScratch, 4, R), {}),
    'biases alone': (_sized(BiasOnly, R), dict(right=0)),
    'fastai': (lambda d: EmbeddingDotBias.from_classes(4, d.classes, y_range=R), {}),
    'fastai, net': (lambda d: EmbeddingNN([(d.n_users, 10), (d.n_items, 12)], [20], y_range=R), {}),
    'net': (_net(CollabNN), {}),
    'keras dot product': (_sized(KerasStyleDotProduct, 4), {}),
    'keras bias': (_sized(KerasStyleBias, 4), {}),
    'keras net': (_sized(KerasStyleNN, 10, 40, (0, 0)), {}),
    'labels': (_sized(DotProductLabels, 4, R, both), {}),
    'labels, none': (_sized(DotProductLabels, 4, R), {}),
    'labels, net': (_net(LabelsNN, both), {}),
    'labels, net, mean': (_net(LabelsNN, [parity], 'mean'), {}),
    'SVD++': (_with_pairs(SVDpp, 4, R), {}),
    'SVD++, labels': (_with_pairs(SVDpp, 4, R, labels=both), {}),
    'ensemble': (lambda d: Ensemble([DotProductBias(d.n_users, d.n_items, 4, R), _net(CollabNN)(d)]), {}),
    'Bayes': (lambda d: BayesianMF.from_dls(d, 4).fit(d), {}),
    'Bayes, ordered stars': (lambda d: OrderedBayesianMF.from_dls(d, 4).fit(d), {}),
    'softmax': (_sized(SoftmaxDotProduct, 4, [1, 5]), stars),
    'ordinal': (_sized(OrdinalDotProduct, 4, [1, 5]), stars),
    'bell curve': (_around(_sized(DotProductBias, 4, R)), knows_nothing),
    'bell curve around SVD++': (_around(_with_pairs(SVDpp, 4, R)), knows_nothing),
    'popularity': (_with_pairs(Popularity), knows_nothing),
    'EASE': (_with_pairs(EASE), knows_nothing),
    'Mult-DAE': (_with_pairs(MultDAE, 4), knows_nothing),
}


def pytest_configure(config):
    config.addinivalue_line('markers', 'cuda: needs a CUDA device')


def pytest_collection_modifyitems(items):
    """fastai's `import *` brings fastcore's own `test_…` functions along: no tests of ours. Tests marked
    `cuda` are skipped where there is no CUDA device."""
    items[:] = [
        i
        for i in items
        if not getattr(getattr(i, 'function', None), '__module__', '').startswith(('fastcore', 'fastai'))
    ]
    for item in items:
        if 'cuda' in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason='no CUDA device'))


@pytest.fixture(scope='session')
def ml():
    "ML-100K, from wherever it is served here"
    try: return movielens(verbose=False)
    except DataError as e: pytest.skip(f'ML-100K is nowhere to be had: {e}')


@pytest.fixture(scope='session')
def latest():
    "ml-latest-small, where it is at hand"
    try: return movielens('ml-latest-small', verbose=False)
    except DataError: pytest.skip('ml-latest-small is not at hand')


@pytest.fixture
def dls(ml):
    "The book's loaders on one split, with batches of 512"
    return RatingsDataLoaders.from_df(ml.ratings, item_name='title', rating_name='rating', seed=0, bs=512)
