"How the models train: the table, its recipes, its repeatability."
import re, subprocess, sys
import numpy as np, pandas as pd, pytest, torch
from dataclasses import replace
from pathlib import Path

from fastai.collab import *
from fastai.tabular.all import *

from collab_course.synthetic import synthetic_ratings
from collab_course.dot_product import DotProduct, DotProductBias
from collab_course.loaders import *
from collab_course.distributed import *
from collab_course.training import *
from collab_course.progression import *


@pytest.fixture(scope='module')
def tiny():
    made = synthetic_ratings(80, 60, 2_500, noise=.5, seed=2)
    return made, lambda seed: RatingsDataLoaders.from_df(made.ratings, seed=seed)


def test_table(tiny):
    table, history = run_progression(tiny[1], 'fast', seeds=[0, 1], y_range=None, n_epoch=2, history=True)
    assert table.model.tolist() == [
        'mean',
        'biases alone',
        '1 dot product',
        '2 + sigmoid range',
        '3 + bias',
        '4 + weight decay',
        '5 own embedding',
    ]
    assert table.columns.tolist() == [
        'model',
        'sigmoid_range',
        'bias',
        'weight_decay',
        'own_embedding',
        'train_mse',
        'valid_mse',
        'valid_sd',
        'rmse',
        'seconds',
    ]
    assert table.iloc[2:, 1:5].values.tolist() == [
        [False] * 4,
        [True] + [False] * 3,
        [True] * 2 + [False] * 2,
        [True] * 3 + [False],
        [True] * 4,
    ]
    assert table.iloc[:, 5:].notna().all().all() and (table.seconds[1:] > 0).all()
    assert len(history) == 2 * 6 * 2 and set(history.columns) == {
        'model',
        'seed',
        'epoch',
        'train_mse',
        'valid_mse',
        'seconds',
    }
    last = history[history.epoch == 2].groupby('model').valid_mse.mean()
    assert all(abs(last[m] - v) < 1e-9 for m, v in zip(table.model[1:], table.valid_mse[1:]))
    text = show_table(table)
    assert text.iloc[-1].tolist()[1:5] == ['✓']*4 and '±' in text['valid MSE'][0]
    assert len(plot_curves(history)) == 2 and plot_table(table) is not None
    many = pd.concat(
        [
            history.assign(
                model=history.model + k, valid_mse=9 * history.valid_mse, train_mse=9 * history.train_mse
            )
            for k in 'ab'
        ]
    )
    for ax in plot_curves(many):  # another scale, and more models than colours
        assert len(ax.lines) == 12 and all(
            ax.get_ylim()[0] < line.get_ydata()[-1] < ax.get_ylim()[1] for line in ax.lines
        )
    assert 'valid_sd' not in run_progression(tiny[1](0), 'fast', n_epoch=1, entries=progression[:1])


def test_mean_baseline(tiny):
    dls = tiny[1](0)
    t, v = dls.train_ds.y.numpy(), dls.valid_ds.y.numpy()
    assert np.allclose(mean_baseline(dls), (t.var(), ((v - t.mean())**2).mean()), atol=1e-5)


def test_same_seed_same_table(tiny):
    a, b = (
        run_progression(tiny[1], 'fast', n_epoch=2, y_range=None).drop(columns='seconds') for _ in range(2)
    )
    assert a.equals(b)
    np.random.rand(5); torch.rand(5)
    alone = run_progression(tiny[1], 'fast', n_epoch=2, y_range=None, entries=[progression[4]]).drop(
        columns='seconds'
    )
    # whatever else was run
    assert alone.iloc[-1].equals(a[a.model == '4 + weight decay'].reset_index(drop=True).iloc[0].rename(1))
    assert (
        not run_progression(tiny[1], 'fast', seeds=[1], n_epoch=2, y_range=None)
        .drop(columns='seconds')
        .equals(a)
    )


def test_learns_what_can_be_learned(tiny):
    "On ratings whose best score is known: between it and the biases"
    made = synthetic_ratings(300, 200, 30_000, n_factors=3, noise=.5, factor_sd=.8, seed=0)
    dls = RatingsDataLoaders.from_df(made.ratings, seed=0)
    t = (
        run_progression(
            dls, replace(recipes['fast'], n_epoch=8), y_range=None, entries=[progression[0], progression[4]]
        )
        .set_index('model')
        .valid_mse
    )
    assert made.best_mse - .02 < t['4 + weight decay'] < .5*t['biases alone'] + .5*made.best_mse


def test_recipe(tiny):
    assert recipes['original'] == Recipe('original', 64, 5e-3, 0.1, 0.01) and recipes['fast'] == Recipe(
        'fast', 512, 0.01, 0.4, 0.04
    )
    learn = recipes['fast'].learner(tiny[1](0), BiasOnly)
    assert learn.dls.bs == 512 and isinstance(learn, Learner) and learn.loss_func is mse_flat


def test_unusable(tiny):
    for kw, words in (
        (dict(recipe='slow'), 'no recipe is called'),
        (dict(n_epoch=0), 'at least one epoch'),
        (dict(seeds=[]), 'at least one seed'),
    ):
        with pytest.raises(ValueError, match=words): run_progression(tiny[1], **kw)
    with pytest.raises(TypeError, match='RatingsDataLoaders are needed'):
        run_progression(CollabDataLoaders.from_df(tiny[0].ratings))


def test_says_what_it_does(tiny):
    lines = []
    run_progression(tiny[1], 'fast', n_epoch=2, entries=progression[:1], log=lines.append)
    assert len(lines) == 2 and lines[1].startswith('biases alone') and 'epoch 2/2' in lines[1]


def test_the_find(ml):
    "The stock loader repeats rows, ours does not, and the number of the book is back"
    book = dict(item_name='title', rating_name='rating', seed=0)
    stock = CollabDataLoaders.from_df(ml.ratings.astype({'title': object}), **book)
    ours = RatingsDataLoaders.from_df(ml.ratings, **book)
    assert (
        50_000 < len(set(stock.train.get_idxs())) < 51_200
        and len(set(ours.train.get_idxs().tolist())) == 80_000
    )
    valid = (
        run_progression(ours, 'fast', entries=[progression[0], progression[4]]).set_index('model').valid_mse
    )
    assert .81 < valid['4 + weight decay'] < .835 and .88 < valid['biases alone'] < .91


def test_the_find_in_one_file():
    "The script that reports the find runs on its own, and still finds it"
    script = Path(__file__).resolve().parent.parent/'nbs'/'package'/'stock_epoch.py'
    run = subprocess.run([sys.executable, '-W', 'ignore', script], capture_output=True, text=True)
    assert run.returncode == 1, run.stderr
    seen = {
        name: int(n.replace(',', '')) for name, n in re.findall(r'^(.+): ([\d,]+) of 8,000', run.stdout, re.M)
    }
    assert 4_800 < seen['default loader'] < 5_300 and seen['dl_type=TabDataLoader'] == 8_000


@pytest.mark.cuda
def test_on_cuda(tiny):
    made, _ = tiny
    dls = lambda s: RatingsDataLoaders.from_df(made.ratings, seed=s, device='cuda')
    table = run_progression(dls, 'fast', n_epoch=1, y_range=None)
    assert table.valid_mse.notna().all()


def stepped(opt_func, grads, start, sparse=False, **hypers):
    """A parameter after steps with the given gradients, (n, rows, 2) or [(indices, values), …], and the
    optimiser"""
    p = torch.nn.Parameter(start.clone())
    opt = opt_func([p], **{'lr': .1, 'wd': .3, **hypers})
    for g in grads:
        p.grad = torch.sparse_coo_tensor(g[0][None], g[1], start.shape) if sparse else g.clone()
        opt.step(); opt.zero_grad()
    return p.detach(), opt


def test_row_adam_is_adam():
    set_seed(0)
    start, grads = torch.randn(5, 2), torch.randn(20, 5, 2)
    for hypers in ({}, dict(wd=0.), dict(mom=.8, sqr_mom=.95, eps=1e-8)):
        want, got = stepped(Adam, grads, start, **hypers)[0], stepped(RowAdam, grads, start, **hypers)[0]
        assert torch.allclose(want, got, atol=1e-6) and not torch.allclose(want, start, atol=.1)
    # a list that holds every row is the same as a table; a row that stands twice counts with its sum
    everything = [
        (torch.tensor([3, 0, 1, 2, 4, 0]), torch.cat([g[[3]], g[[0]] - 1, g[1:3], g[[4]], torch.ones(1, 2)]))
        for g in grads
    ]
    assert torch.allclose(
        stepped(RowAdam, everything, start, sparse=True)[0], stepped(Adam, grads, start)[0], atol=1e-5
    )


def test_rows_outside_the_batch_stay():
    set_seed(0)
    start, rows = torch.randn(5, 2), torch.tensor([3, 1, 3])
    p, opt = stepped(RowAdam, [(rows, torch.randn(3, 2)) for _ in range(3)], start, sparse=True)
    assert torch.equal(p[[0, 2, 4]], start[[0, 2, 4]]) and (p[[1, 3]] != start[[1, 3]]).all()
    state = next(iter(opt.state.values()))
    assert not state['grad_avg'][[0, 2, 4]].any() and state['grad_avg'][[1, 3]].all()
    # a parameter of one number a row
    one_d = stepped(RowAdam, [(rows, torch.ones(3))], torch.zeros(5), sparse=True)[0]
    assert one_d[[0, 2, 4]].eq(0).all() and torch.allclose(one_d[[1, 3]], torch.tensor(-.1), atol=1e-3)


def test_row_adam_in_a_learner(tiny, tmp_path):
    dls = tiny[1](0)
    fits = {}
    for name, opt_func in (('adam', Adam), ('rows', RowAdam)):
        learn = recipes['fast'].learner(
            dls, lambda u, i: EmbeddingDotBias(4, u, i, (0, 5.5)), opt_func=opt_func, path=tmp_path
        )
        with learn.no_bar(), learn.no_logging(): recipes['fast'].fit(learn)
        fits[name] = learn
    assert abs(fits['adam'].recorder.values[-1][1] - fits['rows'].recorder.values[-1][1]) < 1e-5
    learn = fits['rows']
    learn.save('half'); before = learn.opt.state_dict()['state'][0]['grad_avg'].clone()
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    learn.load('half')
    assert torch.equal(learn.opt.state_dict()['state'][0]['grad_avg'], before)
    assert recipes['fast'].learner(dls, BiasOnly).opt_func is RowAdam


def test_what_fastai_exempts_from_decay_is_exempt():
    class Exempt(torch.nn.Module):
        def __init__(self): super().__init__(); self.layer = torch.nn.Linear(2, 1)
        def forward(self, x): return 0*self.layer(x.float())
    dls = RatingsDataLoaders.from_df(synthetic_ratings(30, 20, 300).ratings, bs=64, seed=0)
    ends = []
    for opt_func in (Adam, RowAdam):
        set_seed(0)
        learn = Learner(dls, Exempt(), opt_func=opt_func, wd_bn_bias=False)
        start = [p.detach().clone() for p in learn.model.parameters()]
        with learn.no_bar(), learn.no_logging(): learn.fit(2, .1, wd=.5)
        weight, bias = learn.model.parameters()
        assert torch.equal(bias, start[1]) and weight.abs().sum() < .9*start[0].abs().sum()
        ends.append(weight.detach())
    assert torch.allclose(*ends)


@pytest.mark.parametrize('opt_func', [Adam, RowAdam])
def test_biases_can_be_left_undecayed(tiny, opt_func):
    "The very numbers of a model that is decayed by hand: each step, all but the biases"
    recipe = replace(recipes['fast'], n_epoch=2, decay_biases=False)
    class ByHand(Callback):
        def before_step(self):
            for name, p in self.learn.model.named_parameters():
                if 'bias' not in name: p.data.mul_(1 - self.opt.hypers[0]['lr']*.4)
    fits = []
    for spared in (recipe, replace(recipe, wd=0.)):
        learn = spared.learner(tiny[1](0), lambda u, i: DotProductBias(u, i, 4), opt_func=opt_func)
        if not spared.wd: learn.add_cb(ByHand())
        with learn.no_bar(), learn.no_logging(): spared.fit(learn)
        fits.append(learn.model)
    for p, q in zip(*(m.parameters() for m in fits)): assert torch.allclose(p, q, atol=1e-6)
    decayed = replace(recipe, decay_biases=True).learner(
        tiny[1](0), lambda u, i: DotProductBias(u, i, 4), opt_func=opt_func
    )
    with decayed.no_bar(), decayed.no_logging(): recipe.fit(decayed)
    assert (decayed.model.user_biases.weight - fits[0].user_biases.weight).abs().max() > 1e-4
    # has none
    assert replace(recipe, n_epoch=1).fit(recipe.learner(tiny[1](0), lambda u, i: DotProduct(u, i, 4)))


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=pytest.mark.cuda)])
def test_lists_of_rows_learn(device):
    syn = synthetic_ratings(300, 200, 20_000, n_factors=3, noise=.6)
    ratings = syn.ratings.assign(rating=syn.ratings.rating - syn.ratings.rating.mean())
    dls = RatingsDataLoaders.from_df(ratings, seed=0, bs=256, device=device)
    set_seed(0)
    model = sparse_rows(DotProductBias(dls.n_users, dls.n_items, 8, None)).to(device)
    assert all(m.sparse for m in model.modules() if isinstance(m, torch.nn.Embedding))
    learn = Learner(dls, model, opt_func=RowAdam)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(8, .02, wd=.5)
    assert learn.recorder.values[-1][1] < 1.25*syn.best_mse and ratings.rating.var() > 2*syn.best_mse
    assert model(torch.zeros(1, 2, dtype=torch.long, device=device)).abs() < .2      # row 0 was in no batch


def test_a_parameter_without_a_gradient_is_left_alone():
    a, b = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    opt = RowAdam([a, b], lr=.1)
    for k in range(3):
        a.grad = torch.ones(3)
        if k == 0: b.grad = torch.ones(3)
        opt.step(); opt.zero_grad()
        if k == 0: after_one = b.detach().clone()
    assert torch.equal(b, after_one) and a[0] < after_one[0] < 1
    empty = torch.nn.Parameter(torch.ones(3, 2)); opt = RowAdam([empty], lr=.1)
    empty.grad = torch.sparse_coo_tensor(torch.empty(1, 0, dtype=torch.long), torch.empty(0, 2), (3, 2))
    opt.step()
    assert empty.eq(1).all()


def test_what_adam_saved_goes_on(tiny, tmp_path):
    dls = tiny[1](0)
    def fit(opt_func, model, load=False):
        learn = recipes['fast'].learner(dls, model, opt_func=opt_func, path=tmp_path)
        if load: learn.load('by_adam')
        learn.dls.train.restart()
        with learn.no_bar(), learn.no_logging(): learn.fit(1, .01, reset_opt=False)
        return learn
    model = lambda u, i: DotProductBias(u, i, 4)
    fit(Adam, model).save('by_adam')
    a, b = (fit(f, model, True) for f in (Adam, RowAdam))
    for p, q in zip(a.model.parameters(), b.model.parameters()): assert torch.allclose(p, q, atol=1e-5)
    assert np.isfinite(fit(RowAdam, lambda u, i: sparse_rows(model(u, i)), True).recorder.values[-1]).all()
