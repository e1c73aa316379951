"How the models train: the table, its recipes, its repeatability."
import numpy as np, pandas as pd, pytest, torch
from dataclasses import replace

from fastai.collab import *
from fastai.tabular.all import *

from collab_course.data import synthetic_ratings
from collab_course.loaders import *
from collab_course.progression import *


@pytest.fixture(scope='module')
def tiny():
    made = synthetic_ratings(80, 60, 2_500, noise=.5, seed=2)
    return made, lambda seed: RatingsDataLoaders.from_df(made.ratings, seed=seed)


def test_table(tiny):
    table, history = run_progression(tiny[1], 'fast', seeds=[0, 1], y_range=None, n_epoch=2, history=True)
    assert table.model.tolist() == ['mean', 'biases alone', '1 dot product', '2 + sigmoid range', '3 + bias', '4 + weight decay', '5 own embedding']
    assert table.columns.tolist() == ['model', 'sigmoid_range', 'bias', 'weight_decay', 'own_embedding', 'train_mse', 'valid_mse', 'valid_sd', 'rmse', 'seconds']
    assert table.iloc[2:, 1:5].values.tolist() == [[False]*4, [True] + [False]*3, [True]*2 + [False]*2, [True]*3 + [False], [True]*4]
    assert table.iloc[:, 5:].notna().all().all() and (table.seconds[1:] > 0).all()
    assert len(history) == 2*6*2 and set(history.columns) == {'model', 'seed', 'epoch', 'train_mse', 'valid_mse', 'seconds'}
    last = history[history.epoch == 2].groupby('model').valid_mse.mean()
    assert all(abs(last[m] - v) < 1e-9 for m, v in zip(table.model[1:], table.valid_mse[1:]))
    text = show_table(table)
    assert text.iloc[-1].tolist()[1:5] == ['✓']*4 and '±' in text['valid MSE'][0]
    assert len(plot_curves(history)) == 2 and plot_table(table) is not None
    many = pd.concat([history.assign(model=history.model + k, valid_mse=9*history.valid_mse, train_mse=9*history.train_mse) for k in 'ab'])
    for ax in plot_curves(many):                            # another scale, and more models than colours
        assert len(ax.lines) == 12 and all(ax.get_ylim()[0] < line.get_ydata()[-1] < ax.get_ylim()[1] for line in ax.lines)
    assert 'valid_sd' not in run_progression(tiny[1](0), 'fast', n_epoch=1, entries=progression[:1])


def test_mean_baseline(tiny):
    dls = tiny[1](0)
    t, v = dls.train_ds.y.numpy(), dls.valid_ds.y.numpy()
    assert np.allclose(mean_baseline(dls), (t.var(), ((v - t.mean())**2).mean()), atol=1e-5)


def test_same_seed_same_table(tiny):
    a, b = (run_progression(tiny[1], 'fast', n_epoch=2, y_range=None).drop(columns='seconds') for _ in range(2))
    assert a.equals(b)
    np.random.rand(5); torch.rand(5)
    alone = run_progression(tiny[1], 'fast', n_epoch=2, y_range=None, entries=[progression[4]]).drop(columns='seconds')
    assert alone.iloc[-1].equals(a[a.model == '4 + weight decay'].reset_index(drop=True).iloc[0].rename(1))     # whatever else was run
    assert not run_progression(tiny[1], 'fast', seeds=[1], n_epoch=2, y_range=None).drop(columns='seconds').equals(a)


def test_learns_what_can_be_learned(tiny):
    "On ratings whose best score is known: between it and the biases"
    made = synthetic_ratings(300, 200, 30_000, n_factors=3, noise=.5, factor_sd=.8, seed=0)
    dls = RatingsDataLoaders.from_df(made.ratings, seed=0)
    t = run_progression(dls, replace(recipes['fast'], n_epoch=8), y_range=None, entries=[progression[0], progression[4]]).set_index('model').valid_mse
    assert made.best_mse - .02 < t['4 + weight decay'] < .5*t['biases alone'] + .5*made.best_mse


def test_recipe(tiny):
    assert recipes['original'] == Recipe('original', 64, 5e-3, .1, .01) and recipes['fast'] == Recipe('fast', 512, .01, .4, .04)
    learn = recipes['fast'].learner(tiny[1](0), BiasOnly)
    assert learn.dls.bs == 512 and isinstance(learn, Learner) and learn.loss_func is mse_flat


def test_unusable(tiny):
    for kw, words in ((dict(recipe='slow'), 'no recipe is called'), (dict(n_epoch=0), 'at least one epoch'), (dict(seeds=[]), 'at least one seed')):
        with pytest.raises(ValueError, match=words): run_progression(tiny[1], **kw)
    with pytest.raises(TypeError, match='RatingsDataLoaders are needed'): run_progression(CollabDataLoaders.from_df(tiny[0].ratings))


def test_says_what_it_does(tiny):
    lines = []
    run_progression(tiny[1], 'fast', n_epoch=2, entries=progression[:1], log=lines.append)
    assert len(lines) == 2 and lines[1].startswith('biases alone') and 'epoch 2/2' in lines[1]


def test_the_find(ml):
    "The stock loader repeats rows, ours does not, and the number of the book is back"
    book = dict(item_name='title', rating_name='rating', seed=0)
    stock = CollabDataLoaders.from_df(ml.ratings.astype({'title': object}), **book)
    ours = RatingsDataLoaders.from_df(ml.ratings, **book)
    assert 50_000 < len(set(stock.train.get_idxs())) < 51_200 and len(set(ours.train.get_idxs().tolist())) == 80_000
    valid = run_progression(ours, 'fast', entries=[progression[0], progression[4]]).set_index('model').valid_mse
    assert .81 < valid['4 + weight decay'] < .835 and .88 < valid['biases alone'] < .91


@pytest.mark.cuda
def test_on_cuda(tiny):
    made, _ = tiny
    dls = lambda s: RatingsDataLoaders.from_df(made.ratings, seed=s, device='cuda')
    table = run_progression(dls, 'fast', n_epoch=1, y_range=None)
    assert table.valid_mse.notna().all()
