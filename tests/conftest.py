import matplotlib
matplotlib.use('Agg')
import pytest, torch

from collab_course.errors import DataError
from collab_course.movielens import movielens
from collab_course.loaders import RatingsDataLoaders


def pytest_configure(config):
    config.addinivalue_line('markers', 'cuda: needs a CUDA device')


def pytest_collection_modifyitems(items):
    "fastai's `import *` brings fastcore's own `test_…` functions along: no tests of ours. Tests marked `cuda` are skipped where there is no CUDA device."
    items[:] = [i for i in items if not getattr(getattr(i, 'function', None), '__module__', '').startswith(('fastcore', 'fastai'))]
    for item in items:
        if 'cuda' in item.keywords and not torch.cuda.is_available(): item.add_marker(pytest.mark.skip(reason='no CUDA device'))


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
